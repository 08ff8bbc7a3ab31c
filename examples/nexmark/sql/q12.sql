-- Bids of a bidder in each 10 seconds. The original takes the clock of the machine; this takes the time of the bid.
SELECT bidder, count(*) AS bids, window_start, window_end
FROM tumble(bid, at, INTERVAL '10 seconds')
GROUP BY bidder, window_start, window_end
