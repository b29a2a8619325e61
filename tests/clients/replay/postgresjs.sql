-- postgres.js 3 and node-pg 8.
-- name: array types of the columns of market
-- compare: exact
select b.oid, b.typarray
from pg_catalog.pg_type a
left join pg_catalog.pg_type b on b.oid = a.typelem
where a.typcategory = 'A' and b.oid in (16, 20, 23, 25, 701, 1043, 1082, 1114, 1700)
group by b.oid, b.typarray
order by b.oid
--;
-- name: array parameter
-- compare: exact
select '{1,2}'::int[]
--;
-- name: target session attributes
-- compare: exact
show transaction_read_only; select pg_catalog.pg_is_in_recovery()
--;
-- name: any of an array
-- compare: exact
select id, customer from market.orders where id = any('{1,3}') order by id
--;
-- name: begin
-- compare: runs
begin isolation level repeatable read
--;
-- name: savepoint
-- compare: runs
savepoint s1
--;
-- name: roll back to a savepoint
-- compare: runs
rollback to s1
--;
-- name: commit
-- compare: runs
commit
--;
-- name: node-pg: notifications
-- compare: runs
LISTEN "orders"; UNLISTEN "orders"
--;
-- name: node-pg: jsonb of rows
-- compare: exact
-- differs: refused 42883: there are no JSON functions of tables
SELECT json_build_object('id', id, 'customer', customer) AS "order" FROM market.orders ORDER BY id
--;
