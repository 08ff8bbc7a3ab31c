-- Adds what is known of the card's owner and of the merchant. Neither must be known: a stranger is scored, not lost.
SELECT
  v.id, v.card_id, v.merchant_id, v.amount, v.currency, v.country, v.at, v.fraud, v.scenario,
  c.segment, c.home_country, c.daily_limit,
  m.category, m.risk,
  c.card_id IS NOT NULL AS known_card
FROM valid AS v
LEFT JOIN customers AS c ON c.card_id = v.card_id
LEFT JOIN merchants AS m ON m.merchant_id = v.merchant_id
