-- Derives what a reader of the flights asks for. A missing input gives NULL, never a guess.
SELECT
  carrier, flight,
  carrier || CAST(flight AS VARCHAR) AS flight_code,
  airline, tailnum, manufacturer, model, seats,
  year - plane_year AS plane_age,
  origin, dest, dest_name,
  origin || '-' || dest AS route,
  make_date(year, month, day) AS flight_date,
  time_hour,
  -- Built from the schedule and the delay: dep_time is a local clock reading that can say 2400.
  time_hour + CAST(minute || ' minutes' AS INTERVAL) AS scheduled_at,
  time_hour + CAST((minute + dep_delay) || ' minutes' AS INTERVAL) AS departed_at,
  CASE
    WHEN hour < 6 THEN 'night'
    WHEN hour < 12 THEN 'morning'
    WHEN hour < 18 THEN 'afternoon'
    ELSE 'evening'
  END AS part_of_day,
  distance, air_time,
  -- Whole miles per hour, rounded down.
  distance * 60 / air_time AS speed_mph,
  dep_delay, arr_delay,
  dep_delay - arr_delay AS made_up,
  arr_delay >= 15 AS is_delayed,
  CAST(seats AS BIGINT) * distance AS seat_miles,
  temp, precip, visib, wind_gust,
  -- A missing gust means no gust; a missing report leaves the answer open.
  precip >= 0.1 OR visib < 3 OR coalesce(wind_gust, 0) >= 40 AS bad_weather,
  has_airport, has_plane, has_weather
FROM enriched
