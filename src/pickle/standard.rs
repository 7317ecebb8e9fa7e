//! The classes and functions of Python's standard library that pickles of data name.

/// What a value that was read past is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skipped(pub &'static str);

/// What a call of a class or function makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Makes {
    /// A value that is read past.
    Value,
    /// A set or frozenset, from one list or tuple. Protocols before 4 have no opcode for them.
    Set,
    /// A dict, from nothing; its items follow.
    Dict,
    /// A value of the class that is the first argument.
    FirstArgument,
    /// An attribute of the first argument: only `ZoneInfo._unpickle`.
    Attribute,
}

/// A class or function of the closed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Class {
    name: &'static str,
    makes: Makes,
}

impl Class {
    pub(super) fn makes(self) -> Makes {
        self.makes
    }

    /// What a value of this class is, of which nothing else is known.
    pub(super) fn skipped(self) -> Skipped {
        Skipped(self.name)
    }
}

/// The class or function with this name, if it is in the closed set. Protocols before 3 use Python 2's names of modules.
pub(super) fn class(module: &str, name: &str) -> Option<Class> {
    let value = |name| Class { name, makes: Makes::Value };
    Some(match (module, name) {
        ("datetime", "datetime") => value("datetime"),
        ("datetime", "date") => value("date"),
        ("datetime", "time") => value("time"),
        ("datetime", "timedelta") => value("timedelta"),
        ("datetime", "timezone") | ("pytz", "_UTC" | "_p") => value("timezone"),
        ("zoneinfo", "ZoneInfo" | "ZoneInfo._unpickle") => value("ZoneInfo"),
        ("uuid", "UUID") => value("UUID"),
        ("uuid", "SafeUUID") => value("SafeUUID"),
        ("decimal", "Decimal") => value("Decimal"),
        ("fractions", "Fraction") => value("Fraction"),
        ("collections", "OrderedDict") => Class { name: "OrderedDict", makes: Makes::Dict },
        ("collections", "defaultdict") => value("defaultdict"),
        ("collections", "deque") => value("deque"),
        ("_codecs", "encode") => value("bytes"),
        ("copyreg" | "copy_reg", "_reconstructor") => {
            Class { name: "copyreg._reconstructor", makes: Makes::FirstArgument }
        }
        ("builtins" | "__builtin__", name) => match name {
            "set" => Class { name: "set", makes: Makes::Set },
            "frozenset" => Class { name: "frozenset", makes: Makes::Set },
            "getattr" => Class { name: "builtins.getattr", makes: Makes::Attribute },
            "bytes" => value("bytes"),
            "bytearray" => value("bytearray"),
            "complex" => value("complex"),
            "object" => value("object"),
            "dict" => value("dict"),
            "list" => value("list"),
            "int" | "long" => value("int"),
            "range" | "xrange" => value("range"),
            _ => return None,
        },
        _ => return None,
    })
}
