-- Pass through: what a hop costs.
SELECT auction, bidder, price, at, extra FROM bid
