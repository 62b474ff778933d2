//! GVariant's text format, as far as properties of units are written in it: `true`, `5`, `uint64 5`, `'text'`,
//! `['a', 'b']`, `@as []`.

use zbus::{ObjectPath, Signature, Variant};

/// Reads one value, and nothing after it.
pub fn parse(text: &str) -> Result<Variant<'static>, String> {
    let mut reader = Reader { rest: text.trim_start(), depth: 0 };
    let value = reader.value(None)?;
    if reader.rest.is_empty() { Ok(value) } else { Err(format!("{:?} is left over", reader.rest)) }
}

struct Reader<'a> {
    rest: &'a str,
    /// How many values this one is in.
    depth: usize,
}

impl<'a> Reader<'a> {
    fn value(&mut self, wanted: Option<&Signature>) -> Result<Variant<'static>, String> {
        if self.depth >= DEEPEST {
            return Err("it is nested too deeply".into());
        }
        self.depth = self.depth.saturating_add(1);
        let value = self.one(wanted);
        self.depth = self.depth.saturating_sub(1);
        value
    }

    fn one(&mut self, wanted: Option<&Signature>) -> Result<Variant<'static>, String> {
        match self.rest.chars().next() {
            None => Err("there is no value".into()),
            Some('\'' | '"') => self.string().and_then(|text| of_string(text, wanted)),
            Some('[') => self.array(wanted),
            Some('@') => {
                self.skip(1);
                let signature = self.word();
                let signature =
                    Signature::try_from(signature).map_err(|_| format!("{signature:?} is no type"))?;
                self.value(Some(&signature))
            }
            Some(_) => match self.word() {
                "" => Err(format!("{:?} is no value", self.rest)),
                "true" => of_bool(true, wanted),
                "false" => of_bool(false, wanted),
                word if word.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) => {
                    of_number(word, wanted)
                }
                word => {
                    let named = type_named(word).ok_or_else(|| format!("{word:?} is no value"))?;
                    self.value(Some(&named))
                }
            },
        }
    }

    fn array(&mut self, wanted: Option<&Signature>) -> Result<Variant<'static>, String> {
        let element = match wanted {
            None => None,
            Some(Signature::Array(element)) => Some(element.signature()),
            Some(other) => return Err(format!("an array is no {other}")),
        };
        self.skip(1);
        let mut values: Vec<Variant<'static>> = Vec::new();
        while !self.rest.starts_with(']') {
            if !values.is_empty() {
                self.rest.starts_with(',').then(|| self.skip(1)).ok_or("a comma is missing")?;
            }
            if values.len() >= MOST_ELEMENTS {
                return Err("the array is too long".into());
            }
            // The first says of what type all are.
            let like = values.first().map(|first| first.value_signature().clone());
            values.push(self.value(element.or(like.as_ref()))?);
        }
        self.skip(1);
        let signature = match (element, values.first()) {
            (Some(element), _) => element.clone(),
            (None, Some(first)) => first.value_signature().clone(),
            (None, None) => return Err("an empty array needs a type".into()),
        };
        let mut array = zbus::Array::new(&signature);
        for value in values {
            array.append(value).map_err(|_| "the elements are not of one type")?;
        }
        Ok(Variant::from(array))
    }

    /// What stands between quotation marks.
    fn string(&mut self) -> Result<String, String> {
        let mut letters = self.rest.char_indices();
        let quote = letters.next().map(|(_, quote)| quote);
        let mut text = String::new();
        while let Some((at, letter)) = letters.next() {
            match letter {
                letter if Some(letter) == quote => {
                    self.skip(at.saturating_add(1));
                    return Ok(text);
                }
                '\\' => match letters.next() {
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, 't')) => text.push('\t'),
                    Some((_, letter @ ('\\' | '\'' | '"'))) => text.push(letter),
                    _ => return Err("an escape in a string is not known".into()),
                },
                '\0' => return Err("a string holds a null byte".into()),
                letter => text.push(letter),
            }
        }
        Err("a string has no end".into())
    }

    /// What comes before the next space or mark.
    fn word(&mut self) -> &'a str {
        let ends = |c: char| c.is_ascii_whitespace() || ",]['\"@".contains(c);
        let length = self.rest.find(ends).unwrap_or(self.rest.len());
        let word = self.rest.get(..length).unwrap_or_default();
        self.skip(length);
        word
    }

    fn skip(&mut self, bytes: usize) {
        self.rest = self.rest.get(bytes..).unwrap_or_default().trim_start();
    }
}

fn type_named(word: &str) -> Option<Signature> {
    Some(match word {
        "boolean" => Signature::Bool,
        "byte" => Signature::U8,
        "int16" => Signature::I16,
        "uint16" => Signature::U16,
        "int32" => Signature::I32,
        "uint32" => Signature::U32,
        "int64" => Signature::I64,
        "uint64" => Signature::U64,
        "double" => Signature::F64,
        "string" => Signature::Str,
        "objectpath" => Signature::ObjectPath,
        _ => return None,
    })
}

fn of_bool(value: bool, wanted: Option<&Signature>) -> Result<Variant<'static>, String> {
    match wanted {
        None | Some(Signature::Bool) => Ok(value.into()),
        Some(other) => Err(format!("{value} is no {other}")),
    }
}

fn of_string(text: String, wanted: Option<&Signature>) -> Result<Variant<'static>, String> {
    match wanted {
        None | Some(Signature::Str) => Ok(text.into()),
        Some(Signature::ObjectPath) => {
            ObjectPath::try_from(text).map(Variant::from).map_err(|error| error.to_string())
        }
        Some(other) => Err(format!("a string is no {other}")),
    }
}

/// Without a type: int32, or double if it has a point.
fn of_number(word: &str, wanted: Option<&Signature>) -> Result<Variant<'static>, String> {
    let wrong = || format!("{word:?} is no such number");
    let whole = || -> Result<i128, String> {
        let (negative, digits) = match word.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, word.strip_prefix('+').unwrap_or(word)),
        };
        let number = match digits.strip_prefix("0x") {
            Some(digits) => i128::from_str_radix(digits, 16),
            None if digits.len() > 1 && digits.starts_with('0') => i128::from_str_radix(digits, 8),
            None => digits.parse(),
        };
        let number = number.ok().filter(|number| *number >= 0).ok_or_else(wrong)?;
        Ok(if negative { number.saturating_neg() } else { number })
    };
    macro_rules! number {
        ($type:ty) => {
            <$type>::try_from(whole()?).map(Variant::from).map_err(|_| wrong())
        };
    }
    let real = || word.parse::<f64>().map(Variant::from).map_err(|_| wrong());
    match wanted {
        None if word.contains('.') => real(),
        Some(Signature::F64) => real(),
        None | Some(Signature::I32) => number!(i32),
        Some(Signature::U8) => number!(u8),
        Some(Signature::I16) => number!(i16),
        Some(Signature::U16) => number!(u16),
        Some(Signature::U32) => number!(u32),
        Some(Signature::I64) => number!(i64),
        Some(Signature::U64) => number!(u64),
        Some(other) => Err(format!("a number is no {other}")),
    }
}

/// Deeper than any property is, types before a value included.
const DEEPEST: usize = 8;
/// More than any property has.
const MOST_ELEMENTS: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_what_they_say() {
        let table: [(&str, Variant<'_>); 12] = [
            ("true", true.into()),
            ("37", 37_i32.into()),
            ("-0x10", (-16_i32).into()),
            ("2.5", 2.5.into()),
            ("uint64 123456789", 123_456_789_u64.into()),
            ("byte 0xff", 255_u8.into()),
            ("@t 7", 7_u64.into()),
            ("'inactive-or-failed'", "inactive-or-failed".into()),
            (r#""it's \"so\"""#, "it's \"so\"".into()),
            ("['crio.service', 'a']", vec!["crio.service", "a"].into()),
            ("[uint32 1, 2]", vec![1_u32, 2].into()),
            ("@as []", Vec::<String>::new().into()),
        ];
        for (text, value) in table {
            assert_eq!(parse(text).unwrap(), value, "{text}");
        }
    }

    #[test]
    fn what_is_no_value_is_an_error() {
        let deep = ["[".repeat(100_000), "uint64 ".repeat(100_000)];
        for text in &deep {
            assert!(parse(text).is_err());
        }
        for text in [
            "",
            "word",
            "1 2",
            "'open",
            "[",
            "[1",
            "[1 2]",
            "[1, 'a']",
            "[]",
            "uint64 -1",
            "byte 256",
            "int32 2147483648",
            "@",
            "@x",
            "@s 5",
            "uint64 'x'",
            "boolean 1",
            "[[[[",
            "'a\\q'",
            "0x",
            "--1",
            "1e",
            "@as [1]",
            "99999999999999999999999999999999999999999",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
