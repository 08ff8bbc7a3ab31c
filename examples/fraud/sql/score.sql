-- A score from 0 to 1 of plain signals: the payment itself, and the payment against its card's history.
WITH signals AS (
  SELECT *,
    -- How many deviations above the card's own mean. It means something from the sixth payment on; the deviation is at
    -- least one unit of money, so that a cent does not alarm a card that always pays the same.
    CASE WHEN earlier >= 5 THEN (CAST(amount AS DOUBLE) - mean) / greatest(1.0e0, deviation) END AS z,
    -- Another country within half an hour: no plane is so fast.
    coalesce(moved AND seconds_since < 1800, false) AS impossible_travel
  FROM history
)
SELECT
  id, card_id, merchant_id, amount, currency, country, at, fraud, scenario, segment, category, known_card,
  payments_10m, spend_10m, payments_24h, spend_24h, countries_24h, impossible_travel, z,
  least(1.0e0,
      CASE WHEN amount > 220 THEN 0.9e0 WHEN amount > 150 THEN 0.4e0 ELSE 0.0e0 END
    + CASE WHEN z > 4 THEN 0.9e0 WHEN z > 2.5 THEN 0.5e0 ELSE 0.0e0 END
    + CASE WHEN payments_10m >= 5 THEN 0.3e0 ELSE 0.0e0 END
    + CASE WHEN countries_24h >= 3 THEN 0.1e0 ELSE 0.0e0 END
    + CASE WHEN impossible_travel THEN 0.1e0 ELSE 0.0e0 END
    + CASE WHEN CAST(amount AS DOUBLE) > daily_limit OR CAST(spend_24h AS DOUBLE) > 2 * daily_limit THEN 0.1e0 ELSE 0.0e0 END
    + CASE WHEN known_card THEN 0.0e0 ELSE 0.6e0 END
    + 0.1e0 * coalesce(risk, 0.5e0)) AS score
FROM signals
