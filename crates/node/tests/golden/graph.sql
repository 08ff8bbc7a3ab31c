-- a comment
SELECT id,
       CASE WHEN amount > 5 THEN 'big' ELSE nofunction(id) END AS size
FROM orders
