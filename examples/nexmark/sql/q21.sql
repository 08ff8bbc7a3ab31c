-- Channels: a number for the four large ones, what the address says for the others that say it.
SELECT auction, bidder, price, channel, channel_id, at
FROM (
  SELECT
    auction, bidder, price, channel, at,
    CASE lower(channel)
      WHEN 'apple' THEN '0'
      WHEN 'google' THEN '1'
      WHEN 'facebook' THEN '2'
      WHEN 'baidu' THEN '3'
      ELSE regexp_match(url, '(&|^)channel_id=([^&]*)')[2]
    END AS channel_id
  FROM bid
)
WHERE channel_id IS NOT NULL
