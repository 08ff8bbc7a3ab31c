-- Open, high, low, close and volume of each symbol and second, given out when the second is over.
SELECT
  symbol, window_start, window_end,
  first_value(price ORDER BY at) AS open,
  max(price) AS high,
  min(price) AS low,
  last_value(price ORDER BY at) AS close,
  sum(volume) AS volume,
  count(*) AS ticks
FROM tumble(ticks, at, INTERVAL '1 second')
GROUP BY symbol, window_start, window_end
