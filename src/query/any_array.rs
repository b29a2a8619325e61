//! `any_array(array, value)`: the array of `value = ANY (array)` where nothing but the value says
//! its type.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::common::{DataFusionError, Result as DfResult, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use crate::error::{Error, ErrorKind};
use crate::statement::array_items;

pub const ANY_ARRAY: &str = "any_array";

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct AnyArray {
    signature: Signature,
}

impl AnyArray {
    pub fn new() -> Self {
        Self {
            signature: Signature::user_defined(Volatility::Immutable),
        }
    }
}

fn list_of(value: &DataType) -> DataType {
    DataType::List(Field::new_list_field(value.clone(), true).into())
}

impl ScalarUDFImpl for AnyArray {
    fn name(&self) -> &str {
        ANY_ARRAY
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        let [array, value] = types else {
            return Err(DataFusionError::Plan(format!(
                "{ANY_ARRAY} takes two arguments"
            )));
        };
        let array = match array {
            DataType::Null => list_of(value),
            DataType::List(_) | DataType::Utf8 => array.clone(),
            DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
                DataType::List(item.clone())
            }
            DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
            _ => {
                return Err(DataFusionError::Plan(
                    "op ANY/ALL (array) requires array on right side".into(),
                ));
            }
        };
        Ok(vec![array, value.clone()])
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        Ok(match types {
            [DataType::List(item), _] => DataType::List(item.clone()),
            [_, value] => list_of(value),
            _ => DataType::Null,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let [array, _] = args.args.as_slice() else {
            return Err(DataFusionError::Internal(format!(
                "{ANY_ARRAY} takes two arguments"
            )));
        };
        let wanted = args.return_type();
        match array {
            ColumnarValue::Scalar(value) => literal(value, wanted).map(ColumnarValue::Scalar),
            ColumnarValue::Array(array) => {
                let values = (0..array.len())
                    .map(|i| literal(&ScalarValue::try_from_array(array, i)?, wanted));
                Ok(ColumnarValue::Array(ScalarValue::iter_to_array(
                    values.collect::<DfResult<Vec<_>>>()?,
                )?))
            }
        }
    }
}

pub const ANY_UNKNOWN: &str = "any_unknown";

/// `any_unknown(array, value)`: NULL where `value = ANY (array)` is unknown if it is not true, else
/// false.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct AnyUnknown {
    signature: Signature,
}

impl AnyUnknown {
    pub fn new() -> Self {
        Self {
            signature: Signature::any(2, Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for AnyUnknown {
    fn name(&self) -> &str {
        ANY_UNKNOWN
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [lists, values] = &arrays[..] else {
            return Err(DataFusionError::Internal(format!(
                "{ANY_UNKNOWN} takes two arguments"
            )));
        };
        let lists = lists.as_list::<i32>();
        let unknown = |i: usize| {
            if lists.is_null(i) {
                return None;
            }
            let items = lists.value(i);
            let is_unknown = items.null_count() > 0 || values.is_null(i) && !items.is_empty();
            (!is_unknown).then_some(false)
        };
        let unknown: BooleanArray = (0..lists.len()).map(unknown).collect();
        Ok(ColumnarValue::Array(Arc::new(unknown)))
    }
}

/// An array as one of the wanted type: from its literal, or as it is.
fn literal(value: &ScalarValue, wanted: &DataType) -> DfResult<ScalarValue> {
    let DataType::List(item) = wanted else {
        return Ok(value.clone());
    };
    let Some(text) = value.try_as_str() else {
        return value.cast_to(wanted);
    };
    let Some(text) = text else {
        return ScalarValue::try_from(wanted);
    };
    let malformed = || {
        let error = Error::new(
            ErrorKind::InvalidText,
            format!("malformed array literal: \"{text}\""),
        );
        DataFusionError::External(Box::new(error))
    };
    let items: datafusion::arrow::array::StringArray = array_items(text)
        .ok_or_else(malformed)?
        .into_iter()
        .collect();
    let items: ArrayRef = Arc::new(items);
    let typed = cast(&items, item.data_type())?;
    if typed.null_count() > items.null_count() {
        return Err(malformed());
    }
    let values: Vec<ScalarValue> = (0..typed.len())
        .map(|i| ScalarValue::try_from_array(&typed, i))
        .collect::<DfResult<_>>()?;
    Ok(ScalarValue::List(ScalarValue::new_list(
        &values,
        item.data_type(),
        true,
    )))
}
