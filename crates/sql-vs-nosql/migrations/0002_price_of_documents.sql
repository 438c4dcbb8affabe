-- A search for at most a price, or for the cheapest of all, reads the documents in this order: in the same expression as in
-- the statement.
create index product_documents_price on product_documents (((body ->> 'price_cents')::bigint), id);
