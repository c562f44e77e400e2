//! What expressions need that make JSON patches.

use super::only_text;
use crate::functions::Library;
use crate::value::Value;

pub(crate) static LIBRARY: Library = Library {
    declarations: "
        string_jsonpatch_escapeKey: jsonpatch.escapeKey(string) -> string
    ",
    functions: &[("jsonpatch.escapeKey", |args| {
        let text = only_text(args)?;
        Ok(Value::string(text.replace('~', "~0").replace('/', "~1")))
    })],
};
