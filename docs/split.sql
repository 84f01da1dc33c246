-- Who gets which variant, in SQL: DuckDB macros that compute what a gateway computes, from the recorded unit or from nothing but its name.
-- Load them with `.read docs/split.sql`. The definition stands in routing/split.py; tests/routing/test_split_sql.py holds the two together.
--
--   SELECT split_bucket('phishing-2026-11', split_unit('user-17'));                                       -- 0 to 65535
--   SELECT split_arm('phishing-2026-11', 51234, [{'name': 'champion', 'weight': 90}, {'name': 'challenger', 'weight': 10}]);
--   SELECT split_arm_of_unit('phishing-2026-11', split_unit(17), [{'name': 'champion', 'weight': 90}, {'name': 'challenger', 'weight': 10}]);

-- The canonical bytes of a unit: text in NFC; integers in decimal; integral floats as integers; other floats shortest; true and false.
-- NULL where there is no unit (empty text, NaN, infinity): such a request is dealt by its prediction id, as a BLOB of 16 bytes.
CREATE OR REPLACE MACRO split_unit(value) AS encode(nullif(CASE
    WHEN typeof(value) IN ('DOUBLE', 'FLOAT') THEN CASE
        WHEN NOT isfinite(TRY_CAST(value AS DOUBLE)) THEN ''
        WHEN TRY_CAST(value AS DOUBLE) = trunc(TRY_CAST(value AS DOUBLE)) THEN split_integral(TRY_CAST(value AS DOUBLE))
        ELSE CAST(value AS VARCHAR) END
    ELSE nfc_normalize(CAST(value AS VARCHAR)) END, ''));
