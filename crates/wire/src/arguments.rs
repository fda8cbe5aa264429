//! A call's arguments on the wire: a CBOR array of the positional ones (an array) and the named ones (a map).

use bytes::Bytes;

use crate::value::{self, Value};

/// What a function is called with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Arguments {
    /// In order.
    pub positional: Vec<Value>,
    /// By name, in the order given.
    pub named: Vec<(String, Value)>,
}

/// Bytes that are not arguments.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// Not CBOR.
    #[error(transparent)]
    Value(#[from] value::Error),
    /// CBOR of another shape.
    #[error("arguments are an array of two items: an array and a map with text keys")]
    Shape,
}

impl Arguments {
    /// Encodes them, deterministically.
    pub fn to_cbor(&self) -> Bytes {
        let named = self.named.iter().map(|(k, v)| (Value::Text(k.clone()), v.clone())).collect();
        Value::Array(vec![Value::Array(self.positional.clone()), Value::Map(named)]).to_cbor()
    }

    /// Decodes them.
    pub fn from_cbor(bytes: &[u8]) -> Result<Self, Error> {
        let Value::Array(parts) = Value::from_cbor(bytes)? else { return Err(Error::Shape) };
        let Ok([Value::Array(positional), Value::Map(pairs)]) = <[Value; 2]>::try_from(parts) else {
            return Err(Error::Shape);
        };
        let named = pairs
            .into_iter()
            .map(|(k, v)| if let Value::Text(k) = k { Ok((k, v)) } else { Err(Error::Shape) })
            .collect::<Result<_, _>>()?;
        Ok(Self { positional, named })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_read_back() {
        let a = Arguments { positional: vec![Value::Int(1)], named: vec![("x".into(), Value::Null)] };
        assert_eq!(Arguments::from_cbor(&a.to_cbor()), Ok(a));
        assert_eq!(Arguments::from_cbor(&Value::Int(1).to_cbor()), Err(Error::Shape));
    }
}
