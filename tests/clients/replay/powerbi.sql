-- Power BI Desktop and its gateway, over Npgsql 4: the connector's own statements after Npgsql's. From memory and public issues.
-- name: character sets
-- compare: exact
select character_set_name from INFORMATION_SCHEMA.character_sets
--;
-- name: navigator: tables
-- compare: exact
select TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE
from INFORMATION_SCHEMA.tables
where TABLE_SCHEMA not in ('information_schema', 'pg_catalog')
order by TABLE_SCHEMA, TABLE_NAME
--;
-- name: navigator: columns
-- compare: exact
select COLUMN_NAME, ORDINAL_POSITION, IS_NULLABLE, case when (data_type like '%unsigned%') then DATA_TYPE || ' unsigned' else DATA_TYPE end as DATA_TYPE
from INFORMATION_SCHEMA.columns
where TABLE_SCHEMA = 'market' and TABLE_NAME = 'orders'
order by TABLE_SCHEMA, TABLE_NAME, ORDINAL_POSITION
--;
-- name: relationships: keys that point elsewhere
-- compare: exact
select
    pkcol.COLUMN_NAME as PK_COLUMN_NAME,
    fkcol.TABLE_SCHEMA AS FK_TABLE_SCHEMA,
    fkcol.TABLE_NAME AS FK_TABLE_NAME,
    fkcol.COLUMN_NAME as FK_COLUMN_NAME,
    fkcol.ORDINAL_POSITION as ORDINAL,
    fkcon.CONSTRAINT_SCHEMA || '_' || fkcol.TABLE_NAME || '_' || 'market' || '_' || fkcon.CONSTRAINT_NAME as FK_NAME
from
    (select distinct constraint_catalog, constraint_schema, unique_constraint_schema, constraint_name, unique_constraint_name
        from INFORMATION_SCHEMA.referential_constraints) fkcon
        inner join
    INFORMATION_SCHEMA.key_column_usage fkcol
        on fkcon.CONSTRAINT_SCHEMA = fkcol.CONSTRAINT_SCHEMA
        and fkcon.CONSTRAINT_NAME = fkcol.CONSTRAINT_NAME
        inner join
    INFORMATION_SCHEMA.key_column_usage pkcol
        on fkcon.UNIQUE_CONSTRAINT_SCHEMA = pkcol.CONSTRAINT_SCHEMA
        and fkcon.UNIQUE_CONSTRAINT_NAME = pkcol.CONSTRAINT_NAME
where pkcol.TABLE_SCHEMA = 'market' and pkcol.TABLE_NAME = 'orders'
        and pkcol.ORDINAL_POSITION = fkcol.ORDINAL_POSITION
order by FK_NAME, fkcol.ORDINAL_POSITION
--;
-- name: keys of a table
-- compare: exact
select i.CONSTRAINT_SCHEMA || '_' || i.CONSTRAINT_NAME as INDEX_NAME, ii.COLUMN_NAME, ii.ORDINAL_POSITION,
    case when i.CONSTRAINT_TYPE = 'PRIMARY KEY' then 'Y' else 'N' end as PRIMARY_KEY
from INFORMATION_SCHEMA.table_constraints i
    inner join INFORMATION_SCHEMA.key_column_usage ii
        on i.CONSTRAINT_SCHEMA = ii.CONSTRAINT_SCHEMA and i.CONSTRAINT_NAME = ii.CONSTRAINT_NAME
        and i.TABLE_SCHEMA = ii.TABLE_SCHEMA and i.TABLE_NAME = ii.TABLE_NAME
where i.TABLE_SCHEMA = 'market' and i.TABLE_NAME = 'lines' and i.CONSTRAINT_TYPE in ('PRIMARY KEY', 'UNIQUE')
order by i.CONSTRAINT_SCHEMA || '_' || i.CONSTRAINT_NAME, ii.TABLE_SCHEMA, ii.TABLE_NAME, ii.ORDINAL_POSITION
--;
-- name: preview
-- compare: exact
select "$Table"."id" as "id", "$Table"."customer" as "customer", "$Table"."amount" as "amount", "$Table"."placed" as "placed",
    "$Table"."day" as "day", "$Table"."paid" as "paid", "$Table"."weight" as "weight", "$Table"."note" as "note"
from "market"."orders" "$Table"
limit 1000
--;
-- name: DirectQuery: aggregate
-- compare: exact
select "rows"."customer" as "customer", sum("rows"."amount") as "a0"
from (select "_"."customer", "_"."amount" from "market"."orders" "_") "rows"
group by "customer"
limit 1000001
--;
-- name: DirectQuery: distinct count beside nulls
-- compare: exact
select count(distinct("rows"."note")) + max(case when "rows"."note" is null then 1 else 0 end) as "a0", count(1) as "a1"
from (select "_"."note" from "market"."orders" "_") "rows"
--;
-- name: DirectQuery: filter on dates
-- compare: exact
select "_"."id" from "market"."orders" "_"
where "_"."placed" >= timestamp '2024-01-02 00:00:00' and "_"."placed" < timestamp '2024-01-04 00:00:00' and "_"."day" is not null
order by "_"."id"
limit 501
--;
