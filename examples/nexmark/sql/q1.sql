-- Currency: dollars to euros. Exact: 0.908 is a decimal here.
SELECT auction, bidder, 0.908 * price AS price, at, extra FROM bid
