-- Adds the airline, the destination, the plane and the weather at departure to each flight.
-- Every carrier is known, so airlines are an inner join. The other lookups have gaps: four airports
-- outside the fifty states, planes missing from the registry, and hours without a weather report.
SELECT
  f.year, f.month, f.day, f.hour, f.minute, f.time_hour,
  f.carrier, f.flight, f.tailnum, f.origin, f.dest,
  f.dep_delay, f.arr_delay, f.air_time, f.distance,
  al.name AS airline,
  ap.name AS dest_name,
  pl.manufacturer, pl.model, pl.year AS plane_year, pl.seats,
  w.temp, w.precip, w.visib, w.wind_gust,
  ap.faa IS NOT NULL AS has_airport,
  pl.tailnum IS NOT NULL AS has_plane,
  w.origin IS NOT NULL AS has_weather
FROM valid AS f
JOIN airlines AS al ON al.carrier = f.carrier
LEFT JOIN airports AS ap ON ap.faa = f.dest
LEFT JOIN planes AS pl ON pl.tailnum = f.tailnum
-- The hour is in UTC on both sides. The local hour would match twice when the clocks go back.
LEFT JOIN weather AS w ON w.origin = f.origin AND w.time_hour = f.time_hour
