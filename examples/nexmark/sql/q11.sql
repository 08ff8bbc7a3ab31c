-- Sessions: how many bids a bidder makes without a pause of 10 seconds.
SELECT bidder, count(*) AS bids, window_start, window_end
FROM session(bid, at, INTERVAL '10 seconds')
GROUP BY bidder, window_start, window_end
