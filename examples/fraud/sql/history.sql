-- What the card did before: each payment meets its card's history as it arrives.
SELECT
  id, card_id, merchant_id, amount, currency, country, at, fraud, scenario,
  segment, home_country, daily_limit, category, risk, known_card,
  count(*) OVER ten_minutes AS payments_10m,
  sum(amount) OVER ten_minutes AS spend_10m,
  count(*) OVER a_day AS payments_24h,
  sum(amount) OVER a_day AS spend_24h,
  count(DISTINCT country) OVER a_day AS countries_24h,
  -- Another country, and how soon: nobody travels from one to the other in minutes.
  country <> lag(country) OVER card AS moved,
  extract(epoch FROM at) - extract(epoch FROM lag(at) OVER card) AS seconds_since,
  -- The card's own mean and deviation, without this payment: three numbers for each card, not a history.
  count(amount) OVER before AS earlier,
  avg(CAST(amount AS DOUBLE)) OVER before AS mean,
  stddev(CAST(amount AS DOUBLE)) OVER before AS deviation
FROM enriched
WINDOW
  ten_minutes AS (PARTITION BY card_id ORDER BY at RANGE BETWEEN INTERVAL '10 minutes' PRECEDING AND CURRENT ROW),
  a_day AS (PARTITION BY card_id ORDER BY at RANGE BETWEEN INTERVAL '24 hours' PRECEDING AND CURRENT ROW),
  card AS (PARTITION BY card_id ORDER BY at),
  before AS (PARTITION BY card_id ORDER BY at ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
