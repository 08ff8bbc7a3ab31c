-- The flights and delays of each carrier in each hour of scheduled departure, given out when the hour is over.
-- Cancelled flights are not in it; diverted ones have no delay on arrival.
SELECT
  carrier, window_start, window_end,
  count(*) AS flights,
  count(arr_delay) AS arrived,
  count(*) FILTER (WHERE is_delayed) AS delayed,
  sum(dep_delay) AS dep_delay,
  sum(arr_delay) AS arr_delay,
  max(arr_delay) AS worst
FROM tumble(transformed, time_hour, INTERVAL '1 hour')
GROUP BY carrier, window_start, window_end
