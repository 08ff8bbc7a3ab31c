-- What the card did before: each payment meets its card's history, itself included, as it arrives.
SELECT
  id, card_id, merchant_id, amount, currency, country, at, fraud, scenario,
  segment, home_country, daily_limit, category, risk, known_card,
  -- Ten minutes and a day.
  count(*) OVER (PARTITION BY card_id ORDER BY at RANGE BETWEEN INTERVAL '10 minutes' PRECEDING AND CURRENT ROW) AS payments_10m,
  sum(amount) OVER (PARTITION BY card_id ORDER BY at RANGE BETWEEN INTERVAL '10 minutes' PRECEDING AND CURRENT ROW) AS spend_10m,
  count(*) OVER (PARTITION BY card_id ORDER BY at RANGE BETWEEN INTERVAL '24 hours' PRECEDING AND CURRENT ROW) AS payments_24h,
  sum(amount) OVER (PARTITION BY card_id ORDER BY at RANGE BETWEEN INTERVAL '24 hours' PRECEDING AND CURRENT ROW) AS spend_24h,
  count(DISTINCT country) OVER (PARTITION BY card_id ORDER BY at RANGE BETWEEN INTERVAL '24 hours' PRECEDING AND CURRENT ROW) AS countries_24h,
  -- The payment before, for travel faster than any plane.
  lag(country) OVER (PARTITION BY card_id ORDER BY at) AS last_country,
  lag(at) OVER (PARTITION BY card_id ORDER BY at) AS last_at,
  -- Sums over all payments, for mean and deviation: kept as three numbers, not as a history.
  count(*) OVER (PARTITION BY card_id ORDER BY at ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS n,
  sum(CAST(amount AS DOUBLE)) OVER (PARTITION BY card_id ORDER BY at ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS total,
  sum(CAST(amount AS DOUBLE) * CAST(amount AS DOUBLE))
    OVER (PARTITION BY card_id ORDER BY at ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS squares
FROM enriched
