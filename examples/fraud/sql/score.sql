-- A score from 0 to 1 of four plain signals. History (counts and spend per card) comes with windows.
SELECT
  id, card_id, merchant_id, amount, currency, country, at, fraud, scenario, segment, category, known_card,
  least(1.0e0,
      CASE WHEN amount > 220 THEN 0.9e0 WHEN amount > 150 THEN 0.4e0 ELSE 0.0e0 END
    + CASE WHEN country <> home_country THEN 0.2e0 ELSE 0.0e0 END
    + CASE WHEN CAST(amount AS DOUBLE) > daily_limit THEN 0.3e0 ELSE 0.0e0 END
    + CASE WHEN known_card THEN 0.0e0 ELSE 0.6e0 END
    + 0.2e0 * coalesce(risk, 0.5e0)) AS score
FROM enriched
