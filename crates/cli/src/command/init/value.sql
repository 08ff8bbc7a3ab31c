-- One SELECT over one topic. Every event that goes in comes out, is filtered out, or becomes a dead letter.
SELECT
    id,
    card_id,
    merchant_id,
    amount,
    currency,
    CASE currency WHEN 'USD' THEN amount * 0.92 WHEN 'GBP' THEN amount * 1.17 ELSE amount END AS amount_eur,
    extract(hour FROM at) < 6 AS at_night,
    at
FROM valid
