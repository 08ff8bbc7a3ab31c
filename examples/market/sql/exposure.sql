-- What each account has at stake, bought and sold.
SELECT
  account,
  sum(CASE WHEN side = 'buy' THEN quantity * price ELSE -quantity * price END) AS net,
  sum(quantity * price) AS gross,
  max(quantity * price) AS largest
FROM accepted
GROUP BY account
