-- Selection: the bids on some auctions.
SELECT auction, price, at FROM bid WHERE auction % 123 = 0
