//! Plans and expressions as StarRocks' SQL, where it computes the same; nothing where it is not
//! known to.
//!
//! One SELECT takes in as much of a plan as it can without changing the meaning, and everything
//! else becomes a derived table whose columns are numbered. Columns are addressed by their place,
//! and every expression stands in parentheses. No two columns of a query have one name, because
//! ORDER BY in StarRocks finds the names of the SELECT list first.
//!
//! DataFusion's own unparser, as of 55.2, puts an aggregate's columns in another order, gives a
//! branch's LIMIT to the whole UNION, flattens joins on the right and leaves out parentheses: all
//! of it silently.

mod expr;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::{DFSchema, NullEquality, ScalarValue};
use datafusion::logical_expr::{Distinct, Expr, ExprSchemable, Join, JoinType, LogicalPlan};

pub(super) use self::expr::has_subquery;
use self::expr::{agree, has, has_column, is_key};
use super::print_statement::identifier;
use super::remote_table::table_of;
use super::types::is_opaque;

/// A whole query.
pub(super) struct Printed {
    /// Its text; the columns are the plan's, in its order.
    pub sql: String,
    /// What the columns are called in it.
    pub columns: Vec<String>,
    /// Whether the order of its rows means something.
    pub is_ordered: bool,
}

/// A plan as one query; `None` if the cluster is not known to compute it to the same result.
pub(super) fn print_plan(plan: &LogicalPlan) -> Option<Printed> {
    let mut printer = Printer::default();
    let block = printer.plan(plan)?;
    let is_ordered = !block.order_by.is_empty();
    let (sql, columns) = printer.select(block);
    Some(Printed {
        sql,
        columns,
        is_ordered,
    })
}

/// An expression over columns that have these names in the query.
pub(super) fn print_expr(expr: &Expr, schema: &DFSchema, columns: &[String]) -> Option<String> {
    Printer::default().expr(expr, &Scope { schema, columns })
}

/// One SELECT, as far as it is put together.
#[derive(Default)]
struct SelectBlock {
    /// What each column of the plan is, over the tables in `from`.
    columns: Vec<String>,
    from: String,
    /// Whether `from` is one table or derived table, and so needs no parentheses in a join.
    is_one: bool,
    /// Whether a column is more than one of `from`'s: it is NULL at other times than the row, and
    /// as a constant no key.
    is_computed: bool,
    filters: Vec<String>,
    group_by: Option<Vec<String>>,
    distinct: bool,
    order_by: Vec<String>,
    limit: Option<String>,
}

impl SelectBlock {
    /// Whether it only names where rows and columns come from.
    fn is_source(&self) -> bool {
        !self.is_computed
            && self.filters.is_empty()
            && self.group_by.is_none()
            && !self.distinct
            && self.order_by.is_empty()
            && self.limit.is_none()
    }
}

/// What columns mean where an expression stands.
struct Scope<'a> {
    schema: &'a DFSchema,
    columns: &'a [String],
}

/// Numbers the tables and the SELECTs of one query.
#[derive(Default)]
struct Printer {
    tables: usize,
    selects: usize,
}

/// Whether a table's column could be taken for one that is numbered here.
fn is_numbered(name: &str) -> bool {
    let mut chars = name.chars();
    matches!(chars.next(), Some('o' | 'O')) && chars.all(|c| c == '_' || c.is_ascii_digit())
}

impl Printer {
    fn name(&mut self) -> String {
        self.tables += 1;
        format!("t{}", self.tables)
    }

    /// The block as text, and the names of its columns there.
    fn select(&mut self, mut block: SelectBlock) -> (String, Vec<String>) {
        if block.columns.is_empty() {
            block.columns.push("1".into());
        }
        self.selects += 1;
        let names: Vec<String> = (0..block.columns.len())
            .map(|i| format!("o{}_{i}", self.selects))
            .collect();
        let columns: Vec<String> = block
            .columns
            .iter()
            .zip(&names)
            .map(|(column, name)| format!("{column} AS {name}"))
            .collect();
        let distinct = if block.distinct { "DISTINCT " } else { "" };
        let mut sql = format!(
            "SELECT {distinct}{} FROM {}",
            columns.join(", "),
            block.from
        );
        if !block.filters.is_empty() {
            sql += &format!(" WHERE {}", block.filters.join(" AND "));
        }
        if let Some(keys) = block.group_by.as_ref().filter(|keys| !keys.is_empty()) {
            sql += &format!(" GROUP BY {}", keys.join(", "));
        }
        if !block.order_by.is_empty() {
            sql += &format!(" ORDER BY {}", block.order_by.join(", "));
        }
        if let Some(limit) = &block.limit {
            sql += &format!(" LIMIT {limit}");
        }
        (sql, names)
    }

    /// The block as a table for another one around it.
    fn derived(&mut self, block: SelectBlock) -> SelectBlock {
        let count = block.columns.len();
        let (sql, names) = self.select(block);
        self.table(&sql, &names[..count])
    }

    /// A query as a table.
    fn table(&mut self, sql: &str, columns: &[String]) -> SelectBlock {
        let name = self.name();
        let columns = columns
            .iter()
            .map(|column| format!("{name}.{column}"))
            .collect();
        SelectBlock {
            columns,
            from: format!("({sql}) AS {name}"),
            is_one: true,
            ..SelectBlock::default()
        }
    }

    /// The same where the order of its rows must last: a query around it would be free to lose
    /// that.
    fn derived_as_ordered(&mut self, block: SelectBlock) -> Option<SelectBlock> {
        block.order_by.is_empty().then(|| self.derived(block))
    }

    fn plan(&mut self, plan: &LogicalPlan) -> Option<SelectBlock> {
        match plan {
            LogicalPlan::TableScan(scan) => {
                let (database, table) = table_of(scan)?;
                if scan
                    .projected_schema
                    .fields()
                    .iter()
                    .any(|f| is_numbered(f.name()))
                {
                    return None;
                }
                let name = self.name();
                let columns = scan
                    .projected_schema
                    .fields()
                    .iter()
                    .map(|f| Some(format!("{name}.{}", identifier(f.name()).ok()?)));
                let from = format!(
                    "{}.{} AS {name}",
                    identifier(&database).ok()?,
                    identifier(&table).ok()?
                );
                Some(SelectBlock {
                    columns: columns.collect::<Option<_>>()?,
                    from,
                    is_one: true,
                    ..SelectBlock::default()
                })
            }
            LogicalPlan::SubqueryAlias(alias) => self.plan(&alias.input),
            LogicalPlan::Projection(p) => {
                let mut block = self.plan(&p.input)?;
                // Without one of its aggregates on the list it would be no aggregate any more.
                let is_lost = block.group_by.as_ref().is_some_and(Vec::is_empty)
                    && (block.is_computed || !p.expr.iter().any(has_column));
                if block.distinct || is_lost {
                    block = self.derived_as_ordered(block)?;
                }
                block.is_computed |= p
                    .expr
                    .iter()
                    .any(|e| !matches!(e.clone().unalias_nested().data, Expr::Column(_)));
                // StarRocks has IN (SELECT …) in conditions only.
                if p.expr
                    .iter()
                    .any(|e| has(e, |e| matches!(e, Expr::InSubquery(_))))
                {
                    return None;
                }
                let schema = p.input.schema();
                let columns = p.expr.iter().map(|e| {
                    self.output(
                        e,
                        &Scope {
                            schema,
                            columns: &block.columns,
                        },
                    )
                });
                block.columns = columns.collect::<Option<_>>()?;
                Some(block)
            }
            LogicalPlan::Filter(filter) => {
                let mut block = self.plan(&filter.input)?;
                if block.group_by.is_some() || block.distinct || block.limit.is_some() {
                    block = self.derived_as_ordered(block)?;
                }
                let scope = Scope {
                    schema: filter.input.schema(),
                    columns: &block.columns,
                };
                let predicate = self.expr(&filter.predicate, &scope)?;
                block.filters.push(predicate);
                Some(block)
            }
            LogicalPlan::Aggregate(aggregate) => {
                let mut block = self.plan(&aggregate.input)?;
                if block.group_by.is_some()
                    || block.distinct
                    || block.limit.is_some()
                    || block.is_computed
                {
                    block = self.derived(block);
                }
                // Which order the rows came in makes no difference to what is on the list.
                block.order_by.clear();
                let scope = Scope {
                    schema: aggregate.input.schema(),
                    columns: &block.columns,
                };
                // A number in GROUP BY is a place.
                if aggregate
                    .group_expr
                    .iter()
                    .any(|e| !has_column(e) || !is_key(e, scope.schema))
                {
                    return None;
                }
                if aggregate.aggr_expr.iter().any(has_subquery) {
                    return None;
                }
                let keys = aggregate
                    .group_expr
                    .iter()
                    .map(|e| self.expr(e, &scope))
                    .collect::<Option<Vec<_>>>()?;
                let values = aggregate
                    .aggr_expr
                    .iter()
                    .map(|e| self.aggregate(e, &scope))
                    .collect::<Option<Vec<_>>>()?;
                block.columns = keys.iter().cloned().chain(values).collect();
                block.group_by = Some(keys);
                Some(block)
            }
            LogicalPlan::Distinct(Distinct::All(input)) => {
                let schema = input.schema();
                if schema
                    .fields()
                    .iter()
                    .any(|f| is_opaque(f) || matches!(f.data_type(), DataType::Binary))
                {
                    return None;
                }
                let mut block = self.plan(input)?;
                if block.limit.is_some() || block.group_by.is_some() || block.distinct {
                    block = self.derived(block);
                }
                block.order_by.clear();
                block.distinct = true;
                Some(block)
            }
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => {
                let mut block = self.plan(&sort.input)?;
                if block.limit.is_some() || block.distinct || block.is_computed {
                    block = self.derived(block);
                }
                let scope = Scope {
                    schema: sort.input.schema(),
                    columns: &block.columns,
                };
                block.order_by = sort
                    .expr
                    .iter()
                    .map(|e| self.sort(e, &scope))
                    .collect::<Option<_>>()?;
                Some(block)
            }
            LogicalPlan::Limit(limit) => {
                let number = |e: &Option<Box<Expr>>| match e.as_deref() {
                    Some(Expr::Literal(ScalarValue::Int64(Some(n)), _)) if *n >= 0 => Some(*n),
                    _ => None,
                };
                // StarRocks has no OFFSET without a LIMIT.
                let fetch = number(&limit.fetch)?;
                let skip = if limit.skip.is_some() {
                    number(&limit.skip)?
                } else {
                    0
                };
                let mut block = self.plan(&limit.input)?;
                if block.limit.is_some() {
                    block = self.derived_as_ordered(block)?;
                }
                block.limit = Some(if skip > 0 {
                    format!("{fetch} OFFSET {skip}")
                } else {
                    fetch.to_string()
                });
                Some(block)
            }
            LogicalPlan::Union(union) => {
                let types = |p: &LogicalPlan| {
                    p.schema()
                        .fields()
                        .iter()
                        .map(|f| f.data_type().clone())
                        .collect::<Vec<_>>()
                };
                let first = types(union.inputs.first()?);
                // What comes as text and means something else has a type of its own there.
                if union
                    .inputs
                    .iter()
                    .any(|input| input.schema().fields().iter().any(|f| is_opaque(f)))
                {
                    return None;
                }
                let (mut branches, mut names) = (Vec::new(), Vec::new());
                for input in &union.inputs {
                    if types(input) != first {
                        return None;
                    }
                    let block = self.plan(input)?;
                    let (sql, columns) = self.select(block);
                    branches.push(format!("({sql})"));
                    if names.is_empty() {
                        names = columns;
                    }
                }
                Some(self.table(&branches.join(" UNION ALL "), &names[..first.len()]))
            }
            LogicalPlan::Join(join) => self.join(join),
            _ => None,
        }
    }

    fn join(&mut self, join: &Join) -> Option<SelectBlock> {
        let words = match join.join_type {
            JoinType::Inner => "JOIN",
            JoinType::Left => "LEFT JOIN",
            JoinType::Right => "RIGHT JOIN",
            JoinType::Full => "FULL JOIN",
            _ => return None,
        };
        if join.null_equality != NullEquality::NullEqualsNothing
            || join.filter.as_ref().is_some_and(has_subquery)
        {
            return None;
        }
        let (mut left, mut right) = (self.plan(&join.left)?, self.plan(&join.right)?);
        // Joins read from the left, so only there one may stand as it is.
        if !left.is_source() {
            left = self.derived(left);
        }
        if !right.is_source() || !right.is_one {
            right = self.derived(right);
        }
        let both = join.left.schema().join(join.right.schema()).ok()?;
        let columns: Vec<String> = left.columns.iter().chain(&right.columns).cloned().collect();
        let (here, there) = (
            Scope {
                schema: join.left.schema(),
                columns: &left.columns,
            },
            Scope {
                schema: join.right.schema(),
                columns: &right.columns,
            },
        );
        let mut conditions = Vec::new();
        for (l, r) in &join.on {
            if has_subquery(l)
                || has_subquery(r)
                || !agree(&[
                    (l, l.get_type(here.schema).ok()?),
                    (r, r.get_type(there.schema).ok()?),
                ])
            {
                return None;
            }
            conditions.push(format!(
                "({} = {})",
                self.expr(l, &here)?,
                self.expr(r, &there)?
            ));
        }
        if let Some(filter) = &join.filter {
            conditions.push(self.expr(
                filter,
                &Scope {
                    schema: &both,
                    columns: &columns,
                },
            )?);
        }
        let from = match (conditions.is_empty(), words) {
            (true, "JOIN") => format!("{} CROSS JOIN {}", left.from, right.from),
            (true, _) => return None,
            (false, words) => format!(
                "{} {words} {} ON {}",
                left.from,
                right.from,
                conditions.join(" AND ")
            ),
        };
        Some(SelectBlock {
            columns,
            from,
            ..SelectBlock::default()
        })
    }
}
