-- Hot items: the auctions with the most bids of the last 10 seconds, every 2 seconds.
WITH counts AS (
  SELECT auction, window_start, window_end, count(*) AS num
  FROM hop(bid, at, INTERVAL '2 seconds', INTERVAL '10 seconds')
  GROUP BY auction, window_start, window_end
), most AS (
  SELECT window_start, window_end, max(num) AS num FROM counts GROUP BY window_start, window_end
)
SELECT c.auction, c.num, c.window_start, c.window_end
FROM counts AS c
JOIN most AS m ON c.window_start = m.window_start AND c.window_end = m.window_end
WHERE c.num >= m.num
