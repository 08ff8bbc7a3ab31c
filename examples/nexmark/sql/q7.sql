-- Highest bid: the bids with the highest price of each 10 seconds.
WITH highest AS (
  SELECT window_start, window_end, max(price) AS price
  FROM tumble(bid, at, INTERVAL '10 seconds')
  GROUP BY window_start, window_end
)
SELECT b.auction, b.price, b.bidder, b.at, b.window_start, b.window_end
FROM tumble(bid, at, INTERVAL '10 seconds') AS b
JOIN highest AS h ON b.window_start = h.window_start AND b.window_end = h.window_end AND b.price = h.price
