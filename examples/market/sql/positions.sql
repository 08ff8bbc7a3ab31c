-- What each account holds of each symbol, and what it paid for it: up to date with every order.
SELECT
  account, symbol,
  sum(CASE WHEN side = 'buy' THEN quantity ELSE -quantity END) AS position,
  sum(CASE WHEN side = 'buy' THEN quantity * price ELSE -quantity * price END) AS cost,
  count(*) AS orders
FROM accepted
GROUP BY account, symbol
