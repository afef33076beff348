//! Typed headers: what the fields of a request mean, by family.
//!
//! `X::from(&command)` reads them (borrowing), `x.fields()` lists them for
//! [`crate::write_request`]. A number that is missing or unreadable is a [`FieldError`], answered
//! with SYSTEM_ERROR; unknown fields are ignored. The two hot headers are read by hand in one
//! pass, the rest by the table below.

use std::borrow::Cow;

use crate::fields::{FieldError, Fields};
use crate::write::Value;

pub mod admin;
pub mod client;
pub mod message;
pub mod namesrv;
pub mod offset;
pub mod pop;
pub mod pull;
pub mod send;
pub mod topic;

/// A type a field can be read as and written from.
pub(crate) trait Field<'a>: Sized {
    fn read(fields: &Fields<'a>, name: &'static str) -> Result<Self, FieldError>;
    fn value(&self) -> Option<Value<'_>>;
}

impl<'a> Field<'a> for Cow<'a, str> {
    fn read(fields: &Fields<'a>, name: &'static str) -> Result<Self, FieldError> {
        fields.required_string(name)
    }
    fn value(&self) -> Option<Value<'_>> {
        Some(Value::Str(self))
    }
}

impl<'a> Field<'a> for i32 {
    fn read(fields: &Fields<'a>, name: &'static str) -> Result<Self, FieldError> {
        fields.required_i32(name)
    }
    fn value(&self) -> Option<Value<'_>> {
        Some(Value::I32(*self))
    }
}

impl<'a> Field<'a> for i64 {
    fn read(fields: &Fields<'a>, name: &'static str) -> Result<Self, FieldError> {
        fields.required_i64(name)
    }
    fn value(&self) -> Option<Value<'_>> {
        Some(Value::I64(*self))
    }
}

impl<'a> Field<'a> for bool {
    fn read(fields: &Fields<'a>, name: &'static str) -> Result<Self, FieldError> {
        fields.required_bool(name)
    }
    fn value(&self) -> Option<Value<'_>> {
        Some(Value::Bool(*self))
    }
}

impl<'a, T: Field<'a>> Field<'a> for Option<T> {
    fn read(fields: &Fields<'a>, name: &'static str) -> Result<Self, FieldError> {
        match T::read(fields, name) {
            Ok(value) => Ok(Some(value)),
            Err(FieldError::Missing(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
    fn value(&self) -> Option<Value<'_>> {
        self.as_ref().and_then(T::value)
    }
}

/// Declares a header: the Rust name and type of each field, and its name on the wire.
macro_rules! header {
    (
        $(#[$about:meta])*
        pub struct $name:ident<'a> {
            $( $(#[$note:meta])* $field:ident: $kind:ty = $wire:literal, )*
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name<'a> {
            $( $(#[$note])* pub $field: $kind, )*
        }

        impl<'a> $name<'a> {
            pub fn from(
                command: &$crate::command::Command<'a>,
            ) -> Result<$name<'a>, $crate::fields::FieldError> {
                Ok($name {
                    $( $field: $crate::header::Field::read(&command.fields, $wire)?, )*
                })
            }

            /// The fields that are there, under their wire names.
            pub fn fields(&self) -> Vec<(&'static str, $crate::write::Value<'_>)> {
                let all = [ $( ($wire, $crate::header::Field::value(&self.$field)), )* ];
                all.into_iter()
                    .filter_map(|(name, value)| Some((name, value?)))
                    .collect()
            }
        }
    };
}
pub(crate) use header;

#[cfg(test)]
mod tests;
