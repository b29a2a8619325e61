//! Plans and expressions as StarRocks' SQL, where it computes the same; nothing where it is not known to.
//!
//! One SELECT takes in as much of a plan as it can without changing the meaning, and everything else becomes a derived table whose
//! columns are numbered. Columns are addressed by their place, and every expression stands in parentheses. No two columns of a query
//! have one name, because ORDER BY in StarRocks finds the names of the SELECT list first.
//!
//! DataFusion's own unparser, as of 55.2, puts an aggregate's columns in another order, gives a branch's LIMIT to the whole UNION,
//! flattens joins on the right and leaves out parentheses: all of it silently.

use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{DFSchema, ExprSchema, NullEquality, ScalarValue};
use datafusion::logical_expr::expr::{AggregateFunction, AggregateFunctionParams, InList};
use datafusion::logical_expr::{
    Between, BinaryExpr, Cast, Distinct, Expr, ExprSchemable, Join, JoinType, Like, LogicalPlan, Operator, SortExpr, Subquery,
};

use super::print_statement::{identifier, literal};
use super::push_down::table_of;
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
    Some(Printed { sql, columns, is_ordered })
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
    /// Whether a column is more than one of `from`'s: it is NULL at other times than the row, and as a constant no key.
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
        let names: Vec<String> = (0..block.columns.len()).map(|i| format!("o{}_{i}", self.selects)).collect();
        let columns: Vec<String> = block.columns.iter().zip(&names).map(|(column, name)| format!("{column} AS {name}")).collect();
        let distinct = if block.distinct { "DISTINCT " } else { "" };
        let mut sql = format!("SELECT {distinct}{} FROM {}", columns.join(", "), block.from);
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
        let columns = columns.iter().map(|column| format!("{name}.{column}")).collect();
        SelectBlock { columns, from: format!("({sql}) AS {name}"), is_one: true, ..SelectBlock::default() }
    }

    /// The same where the order of its rows must last: a query around it would be free to lose that.
    fn derived_as_ordered(&mut self, block: SelectBlock) -> Option<SelectBlock> {
        block.order_by.is_empty().then(|| self.derived(block))
    }

    fn plan(&mut self, plan: &LogicalPlan) -> Option<SelectBlock> {
        match plan {
            LogicalPlan::TableScan(scan) => {
                let (database, table) = table_of(scan)?;
                if scan.projected_schema.fields().iter().any(|f| is_numbered(f.name())) {
                    return None;
                }
                let name = self.name();
                let columns = scan.projected_schema.fields().iter().map(|f| Some(format!("{name}.{}", identifier(f.name()).ok()?)));
                let from = format!("{}.{} AS {name}", identifier(&database).ok()?, identifier(&table).ok()?);
                Some(SelectBlock { columns: columns.collect::<Option<_>>()?, from, is_one: true, ..SelectBlock::default() })
            }
            LogicalPlan::SubqueryAlias(alias) => self.plan(&alias.input),
            LogicalPlan::Projection(p) => {
                let mut block = self.plan(&p.input)?;
                // Without one of its aggregates on the list it would be no aggregate any more.
                let is_lost =
                    block.group_by.as_ref().is_some_and(Vec::is_empty) && (block.is_computed || !p.expr.iter().any(has_column));
                if block.distinct || is_lost {
                    block = self.derived_as_ordered(block)?;
                }
                block.is_computed |= p.expr.iter().any(|e| !matches!(e.clone().unalias_nested().data, Expr::Column(_)));
                // StarRocks has IN (SELECT …) in conditions only.
                if p.expr.iter().any(|e| has(e, |e| matches!(e, Expr::InSubquery(_)))) {
                    return None;
                }
                let schema = p.input.schema();
                let columns = p.expr.iter().map(|e| self.output(e, &Scope { schema, columns: &block.columns }));
                block.columns = columns.collect::<Option<_>>()?;
                Some(block)
            }
            LogicalPlan::Filter(filter) => {
                let mut block = self.plan(&filter.input)?;
                if block.group_by.is_some() || block.distinct || block.limit.is_some() {
                    block = self.derived_as_ordered(block)?;
                }
                let scope = Scope { schema: filter.input.schema(), columns: &block.columns };
                let predicate = self.expr(&filter.predicate, &scope)?;
                block.filters.push(predicate);
                Some(block)
            }
            LogicalPlan::Aggregate(aggregate) => {
                let mut block = self.plan(&aggregate.input)?;
                if block.group_by.is_some() || block.distinct || block.limit.is_some() || block.is_computed {
                    block = self.derived(block);
                }
                // Which order the rows came in makes no difference to what is on the list.
                block.order_by.clear();
                let scope = Scope { schema: aggregate.input.schema(), columns: &block.columns };
                // A number in GROUP BY is a place.
                if aggregate.group_expr.iter().any(|e| !has_column(e) || !is_key(e, scope.schema)) {
                    return None;
                }
                if aggregate.aggr_expr.iter().any(has_subquery) {
                    return None;
                }
                let keys = aggregate.group_expr.iter().map(|e| self.expr(e, &scope)).collect::<Option<Vec<_>>>()?;
                let values = aggregate.aggr_expr.iter().map(|e| self.aggregate(e, &scope)).collect::<Option<Vec<_>>>()?;
                block.columns = keys.iter().cloned().chain(values).collect();
                block.group_by = Some(keys);
                Some(block)
            }
            LogicalPlan::Distinct(Distinct::All(input)) => {
                let schema = input.schema();
                if schema.fields().iter().any(|f| is_opaque(f) || matches!(f.data_type(), DataType::Binary)) {
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
                let scope = Scope { schema: sort.input.schema(), columns: &block.columns };
                block.order_by = sort.expr.iter().map(|e| self.sort(e, &scope)).collect::<Option<_>>()?;
                Some(block)
            }
            LogicalPlan::Limit(limit) => {
                let number = |e: &Option<Box<Expr>>| match e.as_deref() {
                    Some(Expr::Literal(ScalarValue::Int64(Some(n)), _)) if *n >= 0 => Some(*n),
                    _ => None,
                };
                // StarRocks has no OFFSET without a LIMIT.
                let fetch = number(&limit.fetch)?;
                let skip = if limit.skip.is_some() { number(&limit.skip)? } else { 0 };
                let mut block = self.plan(&limit.input)?;
                if block.limit.is_some() {
                    block = self.derived_as_ordered(block)?;
                }
                block.limit = Some(if skip > 0 { format!("{fetch} OFFSET {skip}") } else { fetch.to_string() });
                Some(block)
            }
            LogicalPlan::Union(union) => {
                let types = |p: &LogicalPlan| p.schema().fields().iter().map(|f| f.data_type().clone()).collect::<Vec<_>>();
                let first = types(union.inputs.first()?);
                // What comes as text and means something else has a type of its own there.
                if union.inputs.iter().any(|input| input.schema().fields().iter().any(|f| is_opaque(f))) {
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
        if join.null_equality != NullEquality::NullEqualsNothing || join.filter.as_ref().is_some_and(has_subquery) {
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
            Scope { schema: join.left.schema(), columns: &left.columns },
            Scope { schema: join.right.schema(), columns: &right.columns },
        );
        let mut conditions = Vec::new();
        for (l, r) in &join.on {
            if has_subquery(l)
                || has_subquery(r)
                || !agree(&[(l, l.get_type(here.schema).ok()?), (r, r.get_type(there.schema).ok()?)])
            {
                return None;
            }
            conditions.push(format!("({} = {})", self.expr(l, &here)?, self.expr(r, &there)?));
        }
        if let Some(filter) = &join.filter {
            conditions.push(self.expr(filter, &Scope { schema: &both, columns: &columns })?);
        }
        let from = match (conditions.is_empty(), words) {
            (true, "JOIN") => format!("{} CROSS JOIN {}", left.from, right.from),
            (true, _) => return None,
            (false, words) => format!("{} {words} {} ON {}", left.from, right.from, conditions.join(" AND ")),
        };
        Some(SelectBlock { columns, from, ..SelectBlock::default() })
    }

    /// What a SELECT list may hold: also columns that are only shown.
    fn output(&mut self, expr: &Expr, scope: &Scope<'_>) -> Option<String> {
        match expr {
            Expr::Column(column) => scope.columns.get(scope.schema.index_of_column(column).ok()?).cloned(),
            Expr::Alias(alias) => self.output(&alias.expr, scope),
            other => self.expr(other, scope),
        }
    }

    fn sort(&mut self, sort: &SortExpr, scope: &Scope<'_>) -> Option<String> {
        // A number in ORDER BY is a place.
        if !has_column(&sort.expr) || !is_key(&sort.expr, scope.schema) {
            return None;
        }
        let direction = if sort.asc { "ASC" } else { "DESC" };
        let nulls = if sort.nulls_first { "FIRST" } else { "LAST" };
        Some(format!("{} {direction} NULLS {nulls}", self.expr(&sort.expr, scope)?))
    }

    fn list(&mut self, list: &[Expr], scope: &Scope<'_>) -> Option<String> {
        Some(list.iter().map(|e| self.expr(e, scope)).collect::<Option<Vec<_>>>()?.join(", "))
    }

    /// A query that stands alone inside an expression.
    fn subquery(&mut self, subquery: &Subquery) -> Option<String> {
        let is_plain = subquery.subquery.schema().fields().iter().all(|f| !is_opaque(f));
        (is_plain && subquery.outer_ref_columns.is_empty()).then_some(())?;
        let block = self.plan(&subquery.subquery)?;
        Some(format!("({})", self.select(block).0))
    }

    fn expr(&mut self, expr: &Expr, scope: &Scope<'_>) -> Option<String> {
        let type_of = |e: &Expr| e.get_type(scope.schema).ok();
        match expr {
            Expr::Column(column) => {
                let field = scope.schema.field_from_column(column).ok()?;
                (!is_opaque(field)).then_some(())?;
                scope.columns.get(scope.schema.index_of_column(column).ok()?).cloned()
            }
            Expr::Literal(value, _) => print_literal(value),
            Expr::Alias(alias) => self.expr(&alias.expr, scope),
            Expr::Not(e) => Some(format!("(NOT {})", self.expr(e, scope)?)),
            Expr::IsNull(e) => Some(format!("({} IS NULL)", self.expr(e, scope)?)),
            Expr::IsNotNull(e) => Some(format!("({} IS NOT NULL)", self.expr(e, scope)?)),
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                let operands = match op {
                    Operator::And | Operator::Or => vec![self.expr(left, scope)?, self.expr(right, scope)?],
                    Operator::Eq | Operator::NotEq | Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq => {
                        self.compared(&[left, right], scope)?
                    }
                    Operator::Plus | Operator::Minus | Operator::Multiply => {
                        let allowed = match (type_of(left)?, type_of(right)?) {
                            (DataType::Float64, DataType::Float64) => true,
                            (l, r) => is_integer(&l) && is_integer(&r) && (l == DataType::Int64 || r == DataType::Int64),
                        };
                        allowed.then_some(())?;
                        vec![self.expr(left, scope)?, self.expr(right, scope)?]
                    }
                    _ => return None,
                };
                Some(format!("({} {op} {})", operands[0], operands[1]))
            }
            Expr::Between(Between { expr, negated, low, high }) => {
                let not = if *negated { "NOT " } else { "" };
                let operands = self.compared(&[expr, low, high], scope)?;
                Some(format!("({} {not}BETWEEN {} AND {})", operands[0], operands[1], operands[2]))
            }
            Expr::InList(InList { expr, list, negated }) => {
                let not = if *negated { "NOT " } else { "" };
                let all: Vec<&Expr> = std::iter::once(&**expr).chain(list).collect();
                let operands = self.compared(&all, scope)?;
                Some(format!("({} {not}IN ({}))", operands[0], operands[1..].join(", ")))
            }
            Expr::Like(Like { negated, expr, pattern, escape_char: None, case_insensitive: false }) => {
                let plain = matches!(&**pattern, Expr::Literal(ScalarValue::Utf8(Some(p)), _) if !p.contains('\\'));
                (plain && type_of(expr)? == DataType::Utf8).then_some(())?;
                let not = if *negated { "NOT " } else { "" };
                Some(format!("({} {not}LIKE {})", self.expr(expr, scope)?, self.expr(pattern, scope)?))
            }
            Expr::Case(case) => {
                let results = case.when_then_expr.iter().map(|(_, then)| then).chain(&case.else_expr);
                let types = results.map(|e| type_of(e)).collect::<Option<Vec<_>>>()?;
                types.windows(2).all(|w| w[0] == w[1]).then_some(())?;
                let mut text = "CASE".to_owned();
                let whens = case.when_then_expr.iter().map(|(when, _)| &**when);
                let mut conditions = match &case.expr {
                    Some(matched) => self.compared(&std::iter::once(&**matched).chain(whens).collect::<Vec<_>>(), scope)?,
                    None => whens.map(|when| self.expr(when, scope)).collect::<Option<_>>()?,
                };
                if case.expr.is_some() {
                    text += &format!(" {}", conditions.remove(0));
                }
                for (when, (_, then)) in conditions.iter().zip(&case.when_then_expr) {
                    text += &format!(" WHEN {when} THEN {}", self.expr(then, scope)?);
                }
                if let Some(otherwise) = &case.else_expr {
                    text += &format!(" ELSE {}", self.expr(otherwise, scope)?);
                }
                Some(format!("({text} END)"))
            }
            Expr::Cast(cast) => self.cast(cast, scope),
            Expr::ScalarFunction(f) => {
                let types = f.args.iter().map(&type_of).collect::<Option<Vec<_>>>()?;
                let allowed = match f.name() {
                    "coalesce" => types.windows(2).all(|w| w[0] == w[1]),
                    "abs" => matches!(types.as_slice(), [DataType::Float64]),
                    _ => false,
                };
                allowed.then_some(())?;
                Some(format!("{}({})", f.name(), self.list(&f.args, scope)?))
            }
            Expr::InSubquery(inner) => {
                let column = inner.subquery.subquery.schema().fields().first().map(|f| f.data_type().clone());
                (type_of(&inner.expr) == column).then_some(())?;
                let not = if inner.negated { "NOT " } else { "" };
                Some(format!("({} {not}IN {})", self.expr(&inner.expr, scope)?, self.subquery(&inner.subquery)?))
            }
            Expr::ScalarSubquery(subquery) => self.subquery(subquery),
            _ => None,
        }
    }

    /// Operands that are compared with each other, if that means the same there. A text beside times is a time: StarRocks compares
    /// some of them as texts otherwise.
    fn compared(&mut self, operands: &[&Expr], scope: &Scope<'_>) -> Option<Vec<String>> {
        let types = operands.iter().map(|e| Some((*e, e.get_type(scope.schema).ok()?))).collect::<Option<Vec<_>>>()?;
        let time =
            types.iter().map(|(_, t)| t).find(|t| matches!(t, DataType::Date32 | DataType::Timestamp(TimeUnit::Microsecond, None)));
        let Some(time) = time.cloned() else {
            agree(&types).then_some(())?;
            return operands.iter().map(|e| self.expr(e, scope)).collect();
        };
        let print = |(e, t): &(&Expr, DataType)| match e {
            Expr::Literal(ScalarValue::Utf8(Some(text)), _) => time_literal(text, &time),
            e if *t == time || *t == DataType::Null => self.expr(e, scope),
            _ => None,
        };
        types.iter().map(print).collect()
    }

    fn cast(&mut self, cast: &Cast, scope: &Scope<'_>) -> Option<String> {
        match (&*cast.expr, cast.field.data_type()) {
            (Expr::Literal(ScalarValue::Utf8(Some(text)), _), DataType::Date32) => time_literal(text, &DataType::Date32),
            (inner, DataType::Int64) => {
                is_integer(&inner.get_type(scope.schema).ok()?).then_some(())?;
                Some(format!("CAST({} AS BIGINT)", self.expr(inner, scope)?))
            }
            _ => None,
        }
    }

    fn aggregate(&mut self, expr: &Expr, scope: &Scope<'_>) -> Option<String> {
        let AggregateFunction { func, params } = match expr {
            Expr::AggregateFunction(f) => f,
            Expr::Alias(alias) => return self.aggregate(&alias.expr, scope),
            _ => return None,
        };
        let AggregateFunctionParams { args, distinct, filter, order_by, null_treatment } = params;
        (filter.is_none() && order_by.is_empty() && null_treatment.is_none()).then_some(())?;
        let types = args.iter().map(|e| e.get_type(scope.schema).ok()).collect::<Option<Vec<_>>>()?;
        let allowed = match (func.name(), types.as_slice()) {
            ("count", [t]) => !matches!(t, DataType::Binary),
            ("sum", [t]) => !distinct && (is_integer(t) || matches!(t, DataType::Float64 | DataType::Decimal128(..))),
            ("avg", [t]) => !distinct && (is_integer(t) || matches!(t, DataType::Float64)),
            ("min" | "max", [t]) => !matches!(t, DataType::Boolean | DataType::Binary | DataType::Float32),
            _ => false,
        };
        allowed.then_some(())?;
        let distinct = if *distinct { "DISTINCT " } else { "" };
        Some(format!("{}({distinct}{})", func.name(), self.list(args, scope)?))
    }
}

fn has_column(expr: &Expr) -> bool {
    !expr.column_refs().is_empty()
}

fn is_integer(t: &DataType) -> bool {
    matches!(t, DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64)
}

fn has(expr: &Expr, what: impl Fn(&Expr) -> bool) -> bool {
    expr.exists(|e| Ok(what(e))).unwrap_or(true)
}

pub(super) fn has_subquery(expr: &Expr) -> bool {
    has(expr, |e| matches!(e, Expr::InSubquery(_) | Expr::ScalarSubquery(_) | Expr::Exists(_)))
}

/// Whether StarRocks sorts and groups by this.
fn is_key(expr: &Expr, schema: &DFSchema) -> bool {
    !has_subquery(expr) && expr.get_type(schema).is_ok_and(|t| t != DataType::Binary)
}

/// Whether these mean the same when the cluster compares them: values of one type, or numbers that it compares exactly. A sum there
/// has 38 digits, so a scale beyond its own would leave no place for them, and make it a DOUBLE.
fn agree(operands: &[(&Expr, DataType)]) -> bool {
    let known: Vec<_> = operands.iter().filter(|(_, t)| *t != DataType::Null).collect();
    if known.iter().any(|(_, t)| *t == DataType::Binary) {
        return false;
    }
    if known.windows(2).all(|w| w[0].1 == w[1].1) {
        return true;
    }
    let scale = |t: &DataType| match t {
        DataType::Decimal128(_, scale) => Some(*scale),
        t => is_integer(t).then_some(0),
    };
    let is_decimal = |t: &DataType| matches!(t, DataType::Decimal128(..));
    let (literals, others): (Vec<_>, Vec<_>) = known.into_iter().partition(|(e, _)| matches!(e, Expr::Literal(..)));
    let own = others.iter().filter(|(_, t)| is_decimal(t)).map(|(_, t)| scale(t)).collect::<Vec<_>>();
    let most = match own.first() {
        Some(first) if own.iter().all(|s| s == first) => *first,
        Some(_) => None,
        // Integers have 19 digits.
        None => Some(19),
    };
    let Some(most) = most else { return false };
    others.iter().chain(&literals).all(|(_, t)| scale(t).is_some_and(|s| s <= most))
}

/// A text as the date or time that it says, if it plainly does.
fn time_literal(text: &str, data_type: &DataType) -> Option<String> {
    use chrono::{Datelike, NaiveDate, NaiveDateTime, Timelike};
    let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok();
    let value = match data_type {
        DataType::Date32 => ScalarValue::Date32(Some(day?.signed_duration_since(NaiveDate::default()).num_days().try_into().ok()?)),
        _ => {
            let at = day.and_then(|d| d.and_hms_opt(0, 0, 0));
            let at = at.or_else(|| NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f").ok())?;
            (at.nanosecond().is_multiple_of(1000) && (0..=9999).contains(&at.year())).then_some(())?;
            ScalarValue::TimestampMicrosecond(Some(at.and_utc().timestamp_micros()), None)
        }
    };
    print_literal(&value)
}

fn print_literal(value: &ScalarValue) -> Option<String> {
    if value.is_null() {
        return matches!(value, ScalarValue::Null | ScalarValue::Utf8(_)).then(|| "NULL".into());
    }
    Some(match value {
        ScalarValue::Utf8(Some(text)) => literal(text),
        ScalarValue::Boolean(Some(b)) => b.to_string(),
        ScalarValue::Int8(Some(n)) => format!("({n})"),
        ScalarValue::Int16(Some(n)) => format!("({n})"),
        ScalarValue::Int32(Some(n)) => format!("({n})"),
        ScalarValue::Int64(Some(n)) => format!("({n})"),
        ScalarValue::Decimal128(Some(n), _, scale) if *scale >= 0 => {
            let scale = usize::try_from(*scale).ok()?;
            let digits = format!("{:0>width$}", n.unsigned_abs(), width = scale + 1);
            let (whole, fraction) = digits.split_at(digits.len() - scale);
            let point = if fraction.is_empty() { "" } else { "." };
            format!("({}{whole}{point}{fraction})", if *n < 0 { "-" } else { "" })
        }
        ScalarValue::Date32(Some(days)) => {
            let day =
                chrono::NaiveDate::from_ymd_opt(1970, 1, 1)?.checked_add_signed(chrono::TimeDelta::try_days((*days).into())?)?;
            format!("CAST('{day}' AS DATE)")
        }
        ScalarValue::TimestampMicrosecond(Some(micros), None) => {
            let at = chrono::DateTime::from_timestamp_micros(*micros)?;
            format!("CAST('{}' AS DATETIME)", at.format("%Y-%m-%d %H:%M:%S%.6f"))
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_agree_where_they_are_compared_exactly() {
        use DataType::{Decimal128, Int32, Int64, Utf8};
        let column = Expr::Column("c".into());
        let literal = Expr::Literal(ScalarValue::Null, None);
        for (left, right, right_type, expected) in [
            (Int32, &column, Int64, true),
            (Int64, &literal, Decimal128(2, 1), true),
            (Decimal128(20, 2), &literal, Int64, true),
            (Decimal128(20, 2), &literal, Decimal128(3, 1), true),
            (Decimal128(20, 2), &literal, Decimal128(4, 3), false),
            (Decimal128(20, 2), &column, Decimal128(38, 0), false),
            (Decimal128(38, 0), &column, Int64, true),
            (Int64, &literal, Utf8, false),
            (DataType::Binary, &column, DataType::Binary, false),
        ] {
            let found = agree(&[(&column, left.clone()), (right, right_type.clone())]);
            assert_eq!(found, expected, "{left} and {right_type}");
        }
    }

    #[test]
    fn texts_beside_times_are_times() {
        let (day, time) = (DataType::Date32, DataType::Timestamp(TimeUnit::Microsecond, None));
        for (text, data_type, printed) in [
            ("2026-1-5", &day, Some("CAST('2026-01-05' AS DATE)")),
            ("2026-01-05", &time, Some("CAST('2026-01-05 00:00:00.000000' AS DATETIME)")),
            ("2026-01-05 10:00:00.5", &time, Some("CAST('2026-01-05 10:00:00.500000' AS DATETIME)")),
            ("2026-01-05 10:00:00", &day, None),
            ("yesterday", &time, None),
            ("2026-01-05 10:00:00.1234567", &time, None),
        ] {
            assert_eq!(time_literal(text, data_type).as_deref(), printed, "{text}");
        }
    }

    #[test]
    fn literals_are_printed_as_they_are() {
        for (value, text) in [
            (ScalarValue::Utf8(Some("it's \\ x".into())), "'it''s \\\\ x'"),
            (ScalarValue::Int64(Some(-5)), "(-5)"),
            (ScalarValue::Decimal128(Some(-5), 10, 2), "(-0.05)"),
            (ScalarValue::Decimal128(Some(1250), 10, 2), "(12.50)"),
            (ScalarValue::Decimal128(Some(7), 10, 0), "(7)"),
            (ScalarValue::Date32(Some(20_454)), "CAST('2026-01-01' AS DATE)"),
            (ScalarValue::TimestampMicrosecond(Some(1_500_000), None), "CAST('1970-01-01 00:00:01.500000' AS DATETIME)"),
            (ScalarValue::Null, "NULL"),
        ] {
            assert_eq!(print_literal(&value).as_deref(), Some(text));
        }
        assert_eq!(print_literal(&ScalarValue::Float64(Some(0.1))), None);
    }
}
