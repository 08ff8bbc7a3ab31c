-- Open, high, low, close and volume of each symbol and minute, given out when the minute is over.
SELECT
  symbol, window_start, window_end,
  first_value(price ORDER BY at) AS open,
  max(price) AS high,
  min(price) AS low,
  last_value(price ORDER BY at) AS close,
  sum(volume) AS volume,
  count(*) AS ticks
FROM tumble(ticks, at, INTERVAL '1 minute')
GROUP BY symbol, window_start, window_end
