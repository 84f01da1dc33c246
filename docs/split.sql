-- Who gets which variant, in SQL: DuckDB macros (1.4 or newer) that deal units as a gateway does, from nothing but salt, names and weights.
-- `.read docs/split.sql`, then:
--
--   SELECT split_bucket('phishing-2026-11', split_unit('user-17'));                              -- 0 to 65535
--   SELECT split_arm('phishing-2026-11', split_bucket('phishing-2026-11', split_unit(17)),
--                    [{'name': 'champion', 'weight': 90}, {'name': 'challenger', 'weight': 10}]);
--
-- For many units take the arms of all buckets once and join:
--
--   CREATE TABLE dealt AS SELECT range AS bucket, split_arm('phishing-2026-11', range, [...]) AS variant FROM range(65536);
--
-- routing/split.py has the definition; tests/routing/test_split_sql.py holds the two together.

CREATE OR REPLACE MACRO split_float(value) AS
    CASE WHEN NOT isfinite(value) THEN ''
         WHEN value = trunc(value) THEN printf('%.0f', value + 0.0) -- + 0.0: there is no -0
         ELSE CAST(value AS VARCHAR) END;

-- The canonical bytes of a unit: text in NFC, integers in decimal, integral floats as integers, other floats by their shortest text, true
-- and false. NULL where there is no unit (empty text, NaN, infinity): such a request is dealt by its prediction id, a BLOB of 16 bytes.
CREATE OR REPLACE MACRO split_unit(value) AS encode(nullif(
    CASE WHEN typeof(value) IN ('FLOAT', 'DOUBLE') OR typeof(value) LIKE 'DECIMAL%'
         THEN split_float(try_cast(value AS DOUBLE))
         ELSE nfc_normalize(CAST(value AS VARCHAR)) END, ''));

-- SHA-256 of salt, a zero byte and the bytes that follow, as 64 hexadecimal digits.
CREATE OR REPLACE MACRO split_hash(salt, bytes) AS
    sha256(encode(nfc_normalize(salt)) || '\x00'::BLOB || bytes);

CREATE OR REPLACE MACRO split_bucket(salt, unit) AS
    CAST('0x' || substr(split_hash(salt, unit), 1, 4) AS INTEGER);

-- splitmix64, modulo 2^64; products are taken in 128 bits.
CREATE OR REPLACE MACRO split_times(word, factor) AS
    CAST(CAST(word AS UHUGEINT) * CAST(factor AS UHUGEINT) % 18446744073709551616::UHUGEINT AS UBIGINT);

CREATE OR REPLACE MACRO split_mix_1(word) AS
    CAST((CAST(word AS UHUGEINT) + 11400714819323198485::UHUGEINT) % 18446744073709551616::UHUGEINT AS UBIGINT);

CREATE OR REPLACE MACRO split_mix_2(word) AS split_times(xor(word, word >> 30), 13787848793156543929);

CREATE OR REPLACE MACRO split_mix_3(word) AS split_times(xor(word, word >> 27), 10723151780598845931);

CREATE OR REPLACE MACRO split_mix_4(word) AS xor(word, word >> 31);

CREATE OR REPLACE MACRO split_mix(word) AS split_mix_4(split_mix_3(split_mix_2(split_mix_1(word))));

-- An arm's key in a bucket, -ln(u) / weight; the least one has the bucket.
CREATE OR REPLACE MACRO split_key(salt, bucket, name, weight) AS
    -ln((CAST(split_mix(xor(CAST(bucket AS UBIGINT),
                            CAST('0x' || substr(split_hash(salt, encode(name)), 1, 16) AS UBIGINT))) >> 12 AS DOUBLE) + 0.5)
        / 4503599627370496.0) / weight;

-- The name of the arm; `arms` is a list of {'name', 'weight'}. Of equal keys the first name has the bucket.
CREATE OR REPLACE MACRO split_arm(salt, bucket, arms) AS
    list_sort(list_transform(
        list_filter(arms, lambda arm: arm.weight > 0),
        lambda arm: {'key': split_key(salt, bucket, arm.name, arm.weight), 'name': arm.name}))[1].name;

-- Whether a mirror saw a prediction (id as a BLOB of 16 bytes), for a sample from 0 to 1.
CREATE OR REPLACE MACRO split_mirrored(mirror, sample, prediction_id) AS
    CAST('0x' || substr(sha256('mirror\x00'::BLOB || encode(mirror) || '\x00'::BLOB || prediction_id), 1, 8) AS BIGINT)
        < round(sample * 4294967296);
