//! Functions of arrays whose answers about NULL are others in PostgreSQL.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, ListArray};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::compute::kernels::cmp::distinct;
use datafusion::arrow::compute::{concat, filter, is_not_null};
use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::common::{DataFusionError, Result as DfResult, ScalarValue};
use datafusion::logical_expr::type_coercion::binary::type_union_resolution;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::failure;
use super::type_name::type_name;
use crate::error::ErrorKind;

/// The function that stands for `value || NULL`: an array is itself, anything else NULL.
pub(crate) const BESIDE_NULL: &str = "beside_null";

/// The function of what ARRAY(SELECT …) has collected: of no rows it is an empty array.
pub(crate) const ARRAY_OR_EMPTY: &str = "array_or_empty";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    /// Without the items that equal one, all of them; NULL stands for NULLs.
    Remove,
    /// Whether each item of the second is in the first. NULL is in none.
    Contains,
    /// Whether the two have an item in common.
    Overlaps,
    BesideNull,
    OrEmpty,
    /// `[1:3]`.
    Dimensions,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct OfArrays {
    kind: Kind,
    signature: Signature,
}

impl Kind {
    fn function(self) -> ScalarUDF {
        ScalarUDF::from(OfArrays {
            kind: self,
            signature: Signature::user_defined(Volatility::Immutable),
        })
    }
}

pub(super) fn all() -> [ScalarUDF; 4] {
    [
        Kind::Remove,
        Kind::BesideNull,
        Kind::OrEmpty,
        Kind::Dimensions,
    ]
    .map(Kind::function)
}

/// What stands for DataFusion's function of two arrays; nothing if it is another.
pub(super) fn of_sets(name: &str) -> Option<Arc<ScalarUDF>> {
    let kind = match name {
        "array_has_all" => Kind::Contains,
        "array_has_any" => Kind::Overlaps,
        _ => return None,
    };
    Some(Arc::new(kind.function()))
}

fn list_of(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(item, true)))
}

fn item_of(of: &DataType) -> Option<DataType> {
    match of {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            Some(item.data_type().clone())
        }
        DataType::Null => Some(DataType::Null),
        _ => None,
    }
}

/// The one type of the items of both.
fn shared(left: DataType, right: DataType) -> Option<DataType> {
    if left == right || right.is_null() {
        return Some(left);
    }
    if left.is_null() {
        return Some(right);
    }
    let are_alike = left.is_numeric() == right.is_numeric();
    type_union_resolution(&[left, right]).filter(|_| are_alike)
}

impl OfArrays {
    fn resolved(&self, types: &[DataType]) -> Option<(Vec<DataType>, DataType)> {
        match (self.kind, types) {
            (Kind::Remove, [list, item]) => {
                let list = list_of(shared(item_of(list)?, item.clone())?);
                let item = item_of(&list)?;
                Some((vec![list.clone(), item], list))
            }
            (Kind::Contains | Kind::Overlaps, [left, right]) => {
                let list = list_of(shared(item_of(left)?, item_of(right)?)?);
                Some((vec![list.clone(), list], DataType::Boolean))
            }
            (Kind::BesideNull, [value]) => Some(match item_of(value) {
                Some(item) if !item.is_null() => (vec![list_of(item.clone())], list_of(item)),
                _ => (vec![value.clone()], DataType::Utf8),
            }),
            (Kind::OrEmpty, [list]) => {
                let list = list_of(item_of(list)?);
                Some((vec![list.clone()], list))
            }
            (Kind::Dimensions, [list]) => Some((vec![list_of(item_of(list)?)], DataType::Utf8)),
            _ => None,
        }
    }

    fn typed(&self, types: &[DataType]) -> DfResult<(Vec<DataType>, DataType)> {
        self.resolved(types).ok_or_else(|| {
            let types: Vec<_> = types.iter().map(type_name).collect();
            let message = format!(
                "function {}({}) does not exist",
                self.name(),
                types.join(", ")
            );
            failure(ErrorKind::UndefinedFunction, message)
        })
    }
}

fn items(list: &ListArray, row: usize) -> DfResult<Vec<ScalarValue>> {
    let items = list.value(row);
    (0..items.len())
        .map(|i| ScalarValue::try_from_array(&items, i))
        .collect()
}

fn removed(list: &ListArray, item: &ArrayRef) -> DfResult<ArrayRef> {
    let mut kept = Vec::with_capacity(list.len());
    for row in 0..list.len() {
        let items = list.value(row);
        let mask = if item.is_null(row) {
            is_not_null(&items)?
        } else {
            let one = datafusion::arrow::array::Scalar::new(item.slice(row, 1));
            distinct(&items, &one)?
        };
        kept.push(if list.is_null(row) {
            items.slice(0, 0)
        } else {
            filter(&items, &mask)?
        });
    }
    let lengths = OffsetBuffer::from_lengths(kept.iter().map(|items| items.len()));
    let parts: Vec<&dyn Array> = kept.iter().map(|items| items.as_ref()).collect();
    let field = Arc::new(Field::new_list_field(list.value_type(), true));
    let values = if parts.is_empty() {
        list.values().slice(0, 0)
    } else {
        concat(&parts)?
    };
    let nulls = list.nulls().cloned();
    Ok(Arc::new(ListArray::try_new(field, lengths, values, nulls)?))
}

/// The items of an array, and those that are not NULL, which equals nothing.
#[derive(Clone)]
struct Items {
    all: Vec<ScalarValue>,
    known: HashSet<ScalarValue>,
}

impl Items {
    fn of(list: &ListArray, row: usize) -> DfResult<Option<Self>> {
        if list.is_null(row) {
            return Ok(None);
        }
        let all = items(list, row)?;
        let known = all.iter().filter(|item| !item.is_null()).cloned();
        let known = known.collect();
        Ok(Some(Self { all, known }))
    }
}

/// One array for all rows, which is looked at once, or one a row.
enum Side<'a> {
    One(Option<Items>),
    Each(&'a ListArray),
}

impl<'a> Side<'a> {
    fn of(arg: &'a ColumnarValue) -> DfResult<Self> {
        match arg {
            ColumnarValue::Scalar(ScalarValue::List(list)) => Items::of(list, 0).map(Self::One),
            ColumnarValue::Array(array) if array.as_list_opt::<i32>().is_some() => {
                Ok(Self::Each(array.as_list::<i32>()))
            }
            other => Err(DataFusionError::Internal(format!(
                "a comparison of arrays with {}",
                other.data_type()
            ))),
        }
    }

    fn in_row(&self, row: usize) -> DfResult<Option<Cow<'_, Items>>> {
        match self {
            Self::One(items) => Ok(items.as_ref().map(Cow::Borrowed)),
            Self::Each(list) => Ok(Items::of(list, row)?.map(Cow::Owned)),
        }
    }
}

fn compared(args: &[ColumnarValue], rows: usize, kind: Kind) -> DfResult<BooleanArray> {
    let [left, right] = args else {
        return Err(DataFusionError::Internal("two arrays are compared".into()));
    };
    let (left, right) = (Side::of(left)?, Side::of(right)?);
    let compare = |row: usize| {
        let (Some(left), Some(right)) = (left.in_row(row)?, right.in_row(row)?) else {
            return Ok(None);
        };
        if kind == Kind::Contains {
            let mut asked = right.all.iter();
            return Ok(Some(asked.all(|item| left.known.contains(item))));
        }
        let (few, many) = match left.all.len() <= right.all.len() {
            true => (left, right),
            false => (right, left),
        };
        let mut asked = few.all.iter();
        Ok(Some(asked.any(|item| many.known.contains(item))))
    };
    (0..rows).map(compare).collect()
}

/// NULLs have no items, whatever stands in their place.
fn without_nulls(list: &ListArray) -> DfResult<ArrayRef> {
    if list.null_count() == 0 {
        return Ok(Arc::new(list.clone()));
    }
    let parts: Vec<ArrayRef> = (0..list.len())
        .map(|row| match list.is_null(row) {
            true => list.values().slice(0, 0),
            false => list.value(row),
        })
        .collect();
    let lengths = OffsetBuffer::from_lengths(parts.iter().map(|items| items.len()));
    let parts: Vec<&dyn Array> = parts.iter().map(|items| items.as_ref()).collect();
    let field = Arc::new(Field::new_list_field(list.value_type(), true));
    let list = ListArray::try_new(field, lengths, concat(&parts)?, None)?;
    Ok(Arc::new(list))
}

/// `[1:2][1:3]`; nothing of an empty array.
fn dimensions(list: &ArrayRef, row: usize) -> Option<String> {
    let mut text = String::new();
    let mut at = list.slice(row, 1);
    while let Some(list) = at.as_list_opt::<i32>() {
        if list.is_empty() || list.is_null(0) || list.value(0).is_empty() {
            break;
        }
        at = list.value(0);
        text.push_str(&format!("[1:{}]", at.len()));
    }
    (!text.is_empty()).then_some(text)
}

impl ScalarUDFImpl for OfArrays {
    fn name(&self) -> &str {
        match self.kind {
            Kind::Remove => "array_remove",
            Kind::Contains => "array_contains",
            Kind::Overlaps => "array_overlaps",
            Kind::BesideNull => BESIDE_NULL,
            Kind::OrEmpty => ARRAY_OR_EMPTY,
            Kind::Dimensions => "array_dims",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        self.typed(types).map(|(args, _)| args)
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        self.typed(types).map(|(_, answer)| answer)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let is_scalar = args
            .args
            .iter()
            .all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        if matches!(self.kind, Kind::Contains | Kind::Overlaps) {
            let rows = if is_scalar { 1 } else { args.number_rows };
            let answer = compared(&args.args, rows, self.kind)?;
            if is_scalar {
                return ScalarValue::try_from_array(&answer, 0).map(ColumnarValue::Scalar);
            }
            return Ok(ColumnarValue::Array(Arc::new(answer)));
        }
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let list = |i: usize| {
            arrays
                .get(i)
                .and_then(|of| of.as_list_opt::<i32>())
                .ok_or_else(|| {
                    DataFusionError::Internal(format!("{} of what is no array", self.name()))
                })
        };
        let rows = arrays.first().map_or(0, |of| of.len());
        let answer: ArrayRef = match self.kind {
            Kind::Remove => removed(list(0)?, &arrays[1])?,
            Kind::Contains | Kind::Overlaps => {
                return Err(DataFusionError::Internal("compared before".into()));
            }
            Kind::OrEmpty => without_nulls(list(0)?)?,
            Kind::BesideNull if list(0).is_ok() => arrays[0].clone(),
            Kind::BesideNull => datafusion::arrow::array::new_null_array(&DataType::Utf8, rows),
            Kind::Dimensions => {
                let texts = (0..rows).map(|row| dimensions(&arrays[0], row));
                Arc::new(texts.collect::<datafusion::arrow::array::StringArray>())
            }
        };
        if is_scalar {
            return ScalarValue::try_from_array(&answer, 0).map(ColumnarValue::Scalar);
        }
        Ok(ColumnarValue::Array(answer))
    }
}
