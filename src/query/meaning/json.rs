//! JSON: operators and functions over texts that hold it. There is no type of its own; `::jsonb` is a
//! text in one form.

use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::common::{DFSchema, DataFusionError, Result as DfResult, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::planner::RawBinaryExpr;
use datafusion::logical_expr::{Distinct, Expr, ExprSchemable, LogicalPlan, ScalarUDF, cast};
use datafusion::sql::sqlparser::ast::BinaryOperator;
use starkeep_pg_semantics::json;

use super::super::growth::value_bytes_max;
use super::failure;
use super::reading::external;
use super::row_by_row::{Computed, RowByRow, Typed, as_text, text, unexpected};
use super::type_name::type_name;
use crate::catalog::array_items;
use crate::error::{Error, ErrorKind};

/// Functions whose answer is JSON, which is not compared: as a text it would be in another way than in
/// PostgreSQL.
const OF_JSON: [&str; 7] = [
    AS_JSON,
    AS_JSONB,
    FIELD,
    ELEMENT,
    PATH,
    "json_extract_path",
    "jsonb_extract_path",
];

/// What `::json` and `::jsonb` are.
pub(crate) const AS_JSON: &str = "json_in";
pub(crate) const AS_JSONB: &str = "jsonb_in";
const FIELD: &str = "json_object_field";
const FIELD_TEXT: &str = "json_object_field_text";
const ELEMENT: &str = "json_array_element";
const ELEMENT_TEXT: &str = "json_array_element_text";
const PATH: &str = "json_at_path";
const PATH_TEXT: &str = "json_at_path_text";

fn is_text(of: &DataType) -> bool {
    of.is_string() || of.is_null()
}

fn texts() -> DataType {
    DataType::List(Field::new_list_field(DataType::Utf8, true).into())
}

fn of_json(types: &[DataType], answer: DataType) -> Typed {
    matches!(types, [of] if is_text(of)).then(|| (vec![DataType::Utf8], answer))
}

fn to_text(types: &[DataType]) -> Typed {
    of_json(types, DataType::Utf8)
}

fn to_count(types: &[DataType]) -> Typed {
    of_json(types, DataType::Int32)
}

fn with_name(types: &[DataType]) -> Typed {
    match types {
        [of, name] if is_text(of) && is_text(name) => {
            Some((vec![DataType::Utf8; 2], DataType::Utf8))
        }
        _ => None,
    }
}

fn with_place(types: &[DataType]) -> Typed {
    match types {
        [of, place] if is_text(of) && place.is_integer() => {
            Some((vec![DataType::Utf8, DataType::Int64], DataType::Utf8))
        }
        _ => None,
    }
}

fn with_path(types: &[DataType]) -> Typed {
    match types {
        [of, DataType::List(_) | DataType::Null] if is_text(of) => {
            Some((vec![DataType::Utf8, texts()], DataType::Utf8))
        }
        _ => None,
    }
}

/// A path as so many names.
fn with_names(types: &[DataType]) -> Typed {
    let fits = types.len() > 1 && types.iter().all(is_text);
    fits.then(|| (vec![DataType::Utf8; types.len()], DataType::Utf8))
}

/// The value as it stands there.
fn as_json(found: Result<Option<&str>, Error>) -> Computed {
    let found = found.map_err(external)?;
    Ok(ScalarValue::Utf8(found.map(str::to_owned)))
}

/// The value as a text.
fn as_plain(found: Result<Option<&str>, Error>) -> Computed {
    let plain = match found.map_err(external)? {
        Some(found) => json::as_text(found).map_err(external)?,
        None => None,
    };
    Ok(ScalarValue::Utf8(plain))
}

/// An argument that is not NULL, as the functions are strict.
fn of(args: &[ScalarValue], place: usize) -> &str {
    args.get(place).and_then(text).unwrap_or_default()
}

fn field(args: &[ScalarValue]) -> Result<Option<&str>, Error> {
    json::field(of(args, 0), of(args, 1))
}

fn element(args: &[ScalarValue]) -> Result<Option<&str>, Error> {
    match args[1] {
        ScalarValue::Int64(Some(place)) => json::element(of(args, 0), place),
        _ => Ok(None),
    }
}

/// What a path leads to; nothing if a part of it is NULL.
fn at_path(args: &[ScalarValue]) -> DfResult<Result<Option<&str>, Error>> {
    let ScalarValue::List(list) = &args[1] else {
        return Err(unexpected(&args[1]));
    };
    let steps = list.value(0);
    let steps: Option<Vec<String>> = steps
        .as_string::<i32>()
        .iter()
        .map(|step| step.map(str::to_owned))
        .collect();
    Ok(match steps {
        Some(steps) => json::at_path(of(args, 0), steps),
        None => Ok(None),
    })
}

fn at_names<'t>(args: &[ScalarValue], document: &'t str) -> Result<Option<&'t str>, Error> {
    let names = (1..args.len()).map(|place| of(args, place));
    json::at_path(document, names)
}

/// The first argument as a jsonb.
fn normal(args: &[ScalarValue], options: &ConfigOptions) -> DfResult<String> {
    json::normal(of(args, 0), value_bytes_max(options)).map_err(external)
}

fn type_of(document: &str) -> Computed {
    as_text(json::type_of(document).map_err(external)?)
}

fn length(document: &str) -> Computed {
    let length = json::array_length(document).map_err(external)?;
    Ok(ScalarValue::Int32(Some(length)))
}

/// Whether an expression is JSON by what it says.
fn is_json(expr: &Expr) -> bool {
    match expr {
        Expr::Alias(alias) => is_json(&alias.expr),
        Expr::ScalarFunction(call) => OF_JSON.contains(&call.name()),
        _ => false,
    }
}

fn refused(what: impl std::fmt::Display) -> DataFusionError {
    let error = Error::unsupported(format_args!("{what} of JSON"))
        .hint("Say ->> for the text, and cast it where it is a number.");
    external(error)
}

/// Refuses what compares JSON inside of an expression.
pub(super) fn check_expr(expr: &Expr) -> DfResult<()> {
    let compares = match expr {
        Expr::BinaryExpr(of) => is_json(&of.left) || is_json(&of.right),
        Expr::InList(of) => is_json(&of.expr) || of.list.iter().any(is_json),
        Expr::InSubquery(of) => is_json(&of.expr),
        Expr::Between(of) => [&of.expr, &of.low, &of.high]
            .into_iter()
            .any(|e| is_json(e)),
        Expr::Like(of) | Expr::SimilarTo(of) => is_json(&of.expr) || is_json(&of.pattern),
        Expr::Case(of) => of.expr.as_deref().is_some_and(is_json),
        Expr::AggregateFunction(of) => {
            let params = &of.params;
            let is_kept = ["count", "array_agg"].contains(&of.func.name()) && !params.distinct;
            !is_kept && params.args.iter().any(is_json)
                || params.order_by.iter().any(|key| is_json(&key.expr))
        }
        Expr::WindowFunction(of) => {
            let params = &of.params;
            params.partition_by.iter().any(is_json)
                || params.order_by.iter().any(|key| is_json(&key.expr))
        }
        _ => false,
    };
    if compares {
        return Err(refused("a comparison"));
    }
    Ok(())
}

/// Refuses to sort and group by JSON, and to join on it.
pub(super) fn check_plan(plan: &LogicalPlan) -> DfResult<()> {
    // What a key names may be said in the list below.
    let said = |input: &LogicalPlan, key: &Expr| match (input, key) {
        (LogicalPlan::Projection(list), Expr::Column(column)) => {
            let place = list.schema.maybe_index_of_column(column);
            place
                .and_then(|place| list.expr.get(place))
                .is_some_and(is_json)
        }
        _ => is_json(key),
    };
    let is_compared = match plan {
        LogicalPlan::Sort(sort) => sort.expr.iter().any(|key| said(&sort.input, &key.expr)),
        LogicalPlan::Aggregate(groups) => {
            groups.group_expr.iter().any(|key| said(&groups.input, key))
        }
        LogicalPlan::Distinct(Distinct::On(distinct)) => distinct
            .on_expr
            .iter()
            .any(|key| said(&distinct.input, key)),
        LogicalPlan::Distinct(Distinct::All(input)) => {
            matches!(&**input, LogicalPlan::Projection(list) if list.expr.iter().any(is_json))
        }
        LogicalPlan::Join(join) => join.on.iter().any(|(a, b)| is_json(a) || is_json(b)),
        _ => false,
    };
    if is_compared {
        return Err(refused("an order or a group"));
    }
    Ok(())
}

/// What a message calls the type of an operand.
fn shown(operand: &Expr, of: &DataType) -> String {
    match operand {
        Expr::Literal(ScalarValue::Utf8(_), _) => "unknown".into(),
        _ => type_name(of),
    }
}

/// `->`, `->>`, `#>` and `#>>`; nothing for other operators.
pub(super) fn operator(expr: &RawBinaryExpr, schema: &DFSchema) -> DfResult<Option<Expr>> {
    let (by_step, by_path, is_plain) = match expr.op {
        BinaryOperator::Arrow => (true, false, false),
        BinaryOperator::LongArrow => (true, false, true),
        BinaryOperator::HashArrow => (false, true, false),
        BinaryOperator::HashLongArrow => (false, true, true),
        // Of two jsonb even `||` is something else than of two texts.
        _ if is_json(&expr.left) || is_json(&expr.right) => {
            return Err(refused(format_args!("the operator {}", expr.op)));
        }
        _ => return Ok(None),
    };
    let (left, right) = (expr.left.get_type(schema)?, expr.right.get_type(schema)?);
    let lacking = || {
        let message = format!(
            "operator does not exist: {} {} {}",
            shown(&expr.left, &left),
            expr.op,
            shown(&expr.right, &right)
        );
        failure(ErrorKind::UndefinedFunction, message)
    };
    if !is_text(&left) {
        return Err(lacking());
    }
    let name = match &right {
        of if by_step && of.is_integer() => [ELEMENT, ELEMENT_TEXT],
        of if by_step && is_text(of) => [FIELD, FIELD_TEXT],
        DataType::List(_) if by_path => [PATH, PATH_TEXT],
        of if by_path && is_text(of) => [PATH, PATH_TEXT],
        _ => return Err(lacking()),
    };
    let step = match &expr.right {
        // A path as PostgreSQL writes arrays.
        Expr::Literal(ScalarValue::Utf8(Some(path)), _) if by_path => {
            let items = array_items(path).ok_or_else(|| {
                let message = format!("malformed array literal: \"{path}\"");
                failure(ErrorKind::InvalidText, message)
            })?;
            let items: Vec<_> = items.into_iter().map(ScalarValue::Utf8).collect();
            let list = ScalarValue::new_list_nullable(&items, &DataType::Utf8);
            Expr::Literal(ScalarValue::List(list), None)
        }
        other if by_path && is_text(&right) => cast(other.clone(), texts()),
        other => other.clone(),
    };
    let function = all()
        .into_iter()
        .find(|f| f.name() == name[usize::from(is_plain)]);
    Ok(function.map(|function| function.call(vec![expr.left.clone(), step])))
}

pub(super) fn all() -> Vec<ScalarUDF> {
    let mut all = vec![
        RowByRow::strict(AS_JSON, to_text, |args, _| {
            json::check(of(args, 0)).map_err(external)?;
            as_text(of(args, 0))
        }),
        RowByRow::strict(AS_JSONB, to_text, |args, options| {
            normal(args, options).and_then(as_text)
        }),
        RowByRow::strict(FIELD, with_name, |args, _| as_json(field(args))),
        RowByRow::strict(FIELD_TEXT, with_name, |args, _| as_plain(field(args))),
        RowByRow::strict(ELEMENT, with_place, |args, _| as_json(element(args))),
        RowByRow::strict(ELEMENT_TEXT, with_place, |args, _| as_plain(element(args))),
        RowByRow::strict(PATH, with_path, |args, _| as_json(at_path(args)?)),
        RowByRow::strict(PATH_TEXT, with_path, |args, _| as_plain(at_path(args)?)),
    ];
    all.extend([
        RowByRow::strict("json_typeof", to_text, |args, _| type_of(of(args, 0))),
        RowByRow::strict("jsonb_typeof", to_text, |args, options| {
            type_of(&normal(args, options)?)
        }),
        RowByRow::strict("json_array_length", to_count, |args, _| length(of(args, 0))),
        RowByRow::strict("jsonb_array_length", to_count, |args, options| {
            length(&normal(args, options)?)
        }),
        RowByRow::strict("json_extract_path", with_names, |args, _| {
            as_json(at_names(args, of(args, 0)))
        }),
        RowByRow::strict("jsonb_extract_path", with_names, |args, options| {
            as_json(at_names(args, &normal(args, options)?))
        }),
        RowByRow::strict("json_extract_path_text", with_names, |args, _| {
            as_plain(at_names(args, of(args, 0)))
        }),
        RowByRow::strict("jsonb_extract_path_text", with_names, |args, options| {
            as_plain(at_names(args, &normal(args, options)?))
        }),
    ]);
    all.into_iter().map(ScalarUDF::from).collect()
}
