-- Views over the lake's tables (lake_predictions, lake_shadows, lake_labels): the flights of July as the gateway recorded them.
-- `flights` is the demo's endpoint (models.py), `candidate` its mirror.

-- The truth of a prediction: its newest label, and when it first came, in the order in which control committed labels. Every request
-- has one flight, so that a label names no row.
CREATE VIEW truth AS
SELECT prediction_id, coalesce("row", 0) AS "row", arg_max(label_number, sequence) AS late, min(sequence) AS sequence, count(*) AS times
FROM lake_labels GROUP BY ALL HAVING NOT arg_max(retracted, sequence);

-- One row a flight that was asked about: who was drawn, who answered, what the candidate would have said, and how it ended.
-- The day is New York's (UTC - 4 in July); our own request id tells the flight's true time, for the gateway's clock is ours.
CREATE TABLE july AS
SELECT p.*, strptime(split_part(p.request_id, '.', 3), '%Y%m%dT%H%MZ') - INTERVAL 4 HOUR AS due, day(due) AS day,
       s.answer_label AS shadow_label, s.answer_score AS shadow_score, s.lag_us AS shadow_lag_us,
       s.prediction_id IS NOT NULL AS is_shadowed, t.late, greatest(s.sequence, t.sequence) AS known_sequence, t.times AS label_times
FROM lake_predictions p
LEFT JOIN lake_shadows s ON s.prediction_id = p.prediction_id AND s."row" = p."row"
    AND s.mirror = 'candidate' AND s.outcome = 'recorded'
LEFT JOIN truth t ON t.prediction_id = p.prediction_id AND t."row" = p."row"
WHERE p.endpoint = 'flights';

-- One row an answer, of whoever gave it. Weights make each arm speak for all flights, however the split stood when it was drawn.
CREATE VIEW answers AS
SELECT variant AS arm, day, due, late, answer_score AS score, answer_label AS label, 1 / propensity AS weight,
       coalesce(unit, prediction_id) AS unit, CAST(answer_label AS DOUBLE) = late AS is_right
FROM july WHERE status = 200 AND propensity IS NOT NULL
UNION ALL
SELECT 'candidate', day, due, late, shadow_score, shadow_label, 1.0,
       coalesce(unit, prediction_id), CAST(shadow_label AS DOUBLE) = late
FROM july WHERE is_shadowed;
