-- DBeaver over pgjdbc: connecting, its navigator, the tabs of a table, sessions and the SQL editor. Restated from the constructs of
-- its PostgreSQL model, not captured.
-- name: connect: schema and user
-- compare: shape
SELECT current_schema(),session_user
--;
-- name: connect: search path
-- compare: exact
-- differs: the default schema is system
SHOW search_path
--;
-- name: connect: setting
-- compare: shape
select * from pg_catalog.pg_settings where name='standard_conforming_strings'
--;
-- name: connect: superuser
-- compare: exact
SELECT usesuper FROM pg_catalog.pg_user WHERE usename = current_user
--;
-- name: databases
-- compare: shape
-- differs: columns of later PostgreSQL versions are there, too
SELECT db.oid,db.* FROM pg_catalog.pg_database db WHERE datallowconn AND NOT datistemplate OR db.datname = '{{database}}' ORDER BY db.datname
--;
-- name: database size
-- compare: shape
select pg_catalog.pg_database_size('{{database}}')
--;
-- name: schemas
-- compare: shape
SELECT n.oid,n.*,d.description FROM pg_catalog.pg_namespace n
LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid=n.oid AND d.objsubid=0 AND d.classoid='pg_namespace'::regclass
ORDER BY nspname
--;
-- name: schema
-- compare: exact
SELECT n.oid,n.nspname,d.description FROM pg_catalog.pg_namespace n
LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid=n.oid AND d.objsubid=0 AND d.classoid='pg_namespace'::regclass
WHERE n.nspname IN ('market','public')
--;
-- name: types
-- compare: shape
SELECT t.oid,t.*,c.relkind,format_type(nullif(t.typbasetype, 0), t.typtypmod) as base_type_name, d.description
FROM pg_catalog.pg_type t
LEFT OUTER JOIN pg_catalog.pg_type et ON et.oid=t.typelem
LEFT OUTER JOIN pg_catalog.pg_class c ON c.oid=t.typrelid
LEFT OUTER JOIN pg_catalog.pg_description d ON t.oid=d.objoid
WHERE t.typname IS NOT NULL
AND (c.relkind IS NULL OR c.relkind = 'c') AND (et.typcategory IS NULL OR et.typcategory <> 'C')
--;
-- name: types of the columns of market
-- compare: exact
-- differs: no system columns such as ctid
SELECT t.oid,t.typname,t.typnamespace,t.typlen,t.typbyval,t.typtype,t.typcategory,t.typispreferred,t.typisdefined,t.typdelim,t.typrelid,t.typelem,t.typarray,t.typalign,t.typstorage,t.typnotnull,t.typbasetype,t.typtypmod,t.typndims,t.typcollation,t.typdefault,c.relkind,format_type(nullif(t.typbasetype, 0), t.typtypmod) as base_type_name
FROM pg_catalog.pg_type t LEFT OUTER JOIN pg_catalog.pg_class c ON c.oid=t.typrelid
WHERE t.oid IN (SELECT DISTINCT a.atttypid FROM pg_catalog.pg_attribute a WHERE a.attrelid IN ({{oid:market.orders}}, {{oid:market.lines}}, {{oid:market.events}}))
ORDER BY t.oid
--;
-- name: roles
-- compare: shape
SELECT a.oid,a.*,pd.description FROM pg_catalog.pg_roles a
left join pg_catalog.pg_shdescription pd on a.oid = pd.objoid
ORDER BY a.rolname
--;
-- name: access methods
-- compare: shape
SELECT am.oid,am.* FROM pg_catalog.pg_am am ORDER BY am.oid
--;
-- name: encodings
-- compare: shape
SELECT c.contoencoding as encid,pg_catalog.pg_encoding_to_char(c.contoencoding) as encname
FROM pg_catalog.pg_conversion c GROUP BY c.contoencoding ORDER BY 2
--;
-- name: collations
-- compare: shape
-- differs: columns of later PostgreSQL versions are there, too
SELECT c.oid,c.* FROM pg_catalog.pg_collation c ORDER BY c.oid
--;
-- name: extensions
-- compare: shape
SELECT e.oid, cfg.tbls, n.nspname as schema_name, e.*
FROM pg_catalog.pg_extension e
JOIN pg_namespace n ON n.oid=e.extnamespace
LEFT JOIN (
    SELECT ne.oid, string_agg(c.relname, ',') as tbls
    FROM (SELECT oid, unnest(extconfig) AS cfgoid FROM pg_extension) ne JOIN pg_class c ON c.oid = ne.cfgoid GROUP BY ne.oid
) cfg ON cfg.oid = e.oid
ORDER BY e.oid
--;
-- name: tables
-- compare: shape
SELECT c.oid,c.*,d.description,pg_catalog.pg_get_expr(c.relpartbound, c.oid) as partition_expr, pg_catalog.pg_get_partkeydef(c.oid) as partition_key
FROM pg_catalog.pg_class c
LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid=c.oid AND d.objsubid=0 AND d.classoid='pg_class'::regclass
WHERE c.relnamespace={{namespace:market}} AND c.relkind not in ('i','I','c')
--;
-- name: tables, columns that do not change
-- compare: exact
SELECT c.oid,c.relname,c.relnamespace,c.relkind,c.relnatts,c.relhasindex,c.relpersistence,c.relispartition,d.description
FROM pg_catalog.pg_class c
LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid=c.oid AND d.objsubid=0 AND d.classoid='pg_class'::regclass
WHERE c.relnamespace={{namespace:market}} AND c.relkind not in ('i','I','c')
--;
-- name: table sizes
-- compare: shape
select c.oid,pg_catalog.pg_total_relation_size(c.oid) as total_rel_size,pg_catalog.pg_relation_size(c.oid) as rel_size
FROM pg_class c WHERE c.relnamespace={{namespace:market}}
--;
-- name: columns
-- compare: exact
SELECT c.relname,a.attname,a.attnum,a.atttypid,a.atttypmod,a.attlen,a.attndims,a.attnotnull,a.atthasdef,a.attidentity,a.attgenerated,a.attisdropped,a.attcollation,pg_catalog.pg_get_expr(ad.adbin, ad.adrelid, true) as def_value,dsc.description,dep.objid
FROM pg_catalog.pg_attribute a
INNER JOIN pg_catalog.pg_class c ON (a.attrelid=c.oid)
LEFT OUTER JOIN pg_catalog.pg_attrdef ad ON (a.attrelid=ad.adrelid AND a.attnum = ad.adnum)
LEFT OUTER JOIN pg_catalog.pg_description dsc ON (c.oid=dsc.objoid AND a.attnum = dsc.objsubid)
LEFT OUTER JOIN pg_depend dep on dep.refobjid = a.attrelid AND dep.deptype = 'i' and dep.refobjsubid = a.attnum and dep.classid = dep.refclassid
WHERE NOT a.attisdropped AND c.relkind not in ('i','I','c') AND c.relnamespace={{namespace:market}} AND a.attnum > 0
ORDER BY a.attnum
--;
-- name: columns of a table, every column of the catalog
-- compare: shape
SELECT c.relname,a.*,pg_catalog.pg_get_expr(ad.adbin, ad.adrelid, true) as def_value,dsc.description,dep.objid
FROM pg_catalog.pg_attribute a
INNER JOIN pg_catalog.pg_class c ON (a.attrelid=c.oid)
LEFT OUTER JOIN pg_catalog.pg_attrdef ad ON (a.attrelid=ad.adrelid AND a.attnum = ad.adnum)
LEFT OUTER JOIN pg_catalog.pg_description dsc ON (c.oid=dsc.objoid AND a.attnum = dsc.objsubid)
LEFT OUTER JOIN pg_depend dep on dep.refobjid = a.attrelid AND dep.deptype = 'i' and dep.refobjsubid = a.attnum and dep.classid = dep.refclassid
WHERE NOT a.attisdropped AND c.oid={{oid:market.orders}}
ORDER BY a.attnum
--;
-- name: constraints
-- compare: exact
SELECT c.oid,c.conname,c.contype,c.condeferrable,c.condeferred,c.convalidated,c.conrelid,c.conindid,c.confrelid,c.conkey,c.confkey,t.relname as tabrelname,rt.relnamespace as refnamespace,d.description, case when c.contype='c' then "substring"(pg_get_constraintdef(c.oid), 7) else null end consrc_copy
FROM pg_catalog.pg_constraint c
INNER JOIN pg_catalog.pg_class t ON t.oid=c.conrelid
LEFT OUTER JOIN pg_catalog.pg_class rt ON rt.oid=c.confrelid
LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid=c.oid AND d.objsubid=0 AND d.classoid='pg_constraint'::regclass
WHERE t.relnamespace={{namespace:market}}
ORDER BY c.oid
--;
-- name: constraints of a table, every column of the catalog
-- compare: shape
SELECT c.oid,c.*,t.relname as tabrelname,rt.relnamespace as refnamespace,d.description
FROM pg_catalog.pg_constraint c
INNER JOIN pg_catalog.pg_class t ON t.oid=c.conrelid
LEFT OUTER JOIN pg_catalog.pg_class rt ON rt.oid=c.confrelid
LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid=c.oid AND d.objsubid=0 AND d.classoid='pg_constraint'::regclass
WHERE c.conrelid={{oid:market.orders}}
ORDER BY c.oid
--;
-- name: indexes
-- compare: exact
SELECT i.indexrelid,i.indrelid,i.indnatts,i.indnkeyatts,i.indisunique,i.indisprimary,i.indisvalid,i.indkey,i.indoption,i.indkey as keys,c.relname,c.relnamespace,c.relam,c.reltablespace,tc.relname as tabrelname,dsc.description,pg_catalog.pg_get_expr(i.indpred, i.indrelid) as pred_expr,pg_catalog.pg_get_expr(i.indexprs, i.indrelid, true) as expr
FROM pg_catalog.pg_index i
INNER JOIN pg_catalog.pg_class c ON c.oid=i.indexrelid
INNER JOIN pg_catalog.pg_class tc ON tc.oid=i.indrelid
LEFT OUTER JOIN pg_catalog.pg_description dsc ON i.indexrelid=dsc.objoid
WHERE tc.relnamespace={{namespace:market}} ORDER BY tabrelname, c.relname
--;
-- name: index definition
-- compare: exact
SELECT pg_catalog.pg_get_indexdef({{oid:market.lines_pkey}})
--;
-- name: index statistics
-- compare: shape
select * from pg_catalog.pg_stat_user_indexes where schemaname='market' and indexrelname='orders_pkey'
--;
-- name: triggers
-- compare: exact
SELECT x.oid,x.tgname,p.pronamespace as func_schema_id,d.description
FROM pg_catalog.pg_trigger x
LEFT OUTER JOIN pg_catalog.pg_proc p ON p.oid=x.tgfoid
LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid=x.oid AND d.objsubid=0
WHERE x.tgrelid={{oid:market.orders}} AND NOT x.tgisinternal
--;
-- name: rules
-- compare: exact
SELECT x.oid,x.rulename,x.ev_class,x.ev_type,x.ev_enabled,x.is_instead FROM pg_catalog.pg_rewrite x WHERE x.ev_class={{oid:market.orders}}
--;
-- name: view definition
-- compare: exact
-- differs: view texts are kept as they were written
SELECT pg_get_viewdef({{oid:market.paid_orders}}, true)
--;
-- name: view definition by name
-- compare: exact
-- differs: view texts are kept as they were written
SELECT definition FROM pg_catalog.pg_views WHERE schemaname='market' AND viewname='paid_orders'
--;
-- name: procedures
-- compare: exact
SELECT p.oid as poid,p.proname,pg_catalog.pg_get_expr(p.proargdefaults, 0) as arg_defaults,d.description
FROM pg_catalog.pg_proc p
LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid=p.oid AND d.objsubid = 0
WHERE p.pronamespace={{namespace:market}} ORDER BY p.proname
--;
-- name: dependencies
-- compare: shape
SELECT DISTINCT dep.deptype, dep.classid, cl.relkind, ad.adbin, ad.adsrc, CASE WHEN cl.relkind IS NOT NULL THEN cl.relkind::text || COALESCE(dep.objsubid::text, '') WHEN ad.oid IS NOT NULL THEN 'A' ELSE '' END AS type, COALESCE(cl.relname, con.conname) AS refname, COALESCE(nsc.nspname, nso.nspname) AS nspname
FROM pg_depend dep
LEFT JOIN pg_class cl ON dep.objid=cl.oid
LEFT JOIN pg_namespace nsc ON cl.relnamespace=nsc.oid
LEFT JOIN pg_constraint con ON dep.objid=con.oid
LEFT JOIN pg_namespace nso ON con.connamespace=nso.oid
LEFT JOIN (SELECT oid, adrelid, pg_get_expr(adbin, adrelid) AS adsrc, adbin::text AS adbin FROM pg_attrdef) ad ON ad.oid=dep.objid
WHERE dep.refobjid={{oid:market.orders}}
--;
-- name: grants on a table
-- compare: shape
SELECT grantor, grantee, table_catalog, table_schema, table_name, privilege_type, is_grantable, with_hierarchy FROM information_schema.table_privileges WHERE table_schema='market' AND table_name='orders'
--;
-- name: sessions
-- compare: shape
SELECT sa.* FROM pg_catalog.pg_stat_activity sa
--;
-- name: locks
-- compare: shape
SELECT lck.locktype, lck.pid, lck.mode, lck.granted, psa.usename, psa.query FROM pg_catalog.pg_locks lck LEFT JOIN pg_catalog.pg_stat_activity psa ON psa.pid = lck.pid WHERE NOT lck.granted
--;
-- name: search metadata: columns
-- compare: exact
SELECT x.attname,x.attrelid,x.atttypid,c.relnamespace FROM pg_catalog.pg_attribute x, pg_catalog.pg_class c
WHERE c.oid=x.attrelid AND x.attname ILIKE '%id%' AND x.attnum > 0 AND c.relnamespace IN ({{namespace:market}}) AND c.relkind IN ('r', 'v')
ORDER BY x.attname LIMIT 100
--;
-- name: data filtered and sorted
-- compare: exact
SELECT t.* FROM market.orders t WHERE t.note LIKE '%o%' ORDER BY t.customer DESC NULLS LAST
--;
