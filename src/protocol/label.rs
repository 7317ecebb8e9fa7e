//! Enums whose variants are stable words: error codes on the wire, labels of metrics, fields of log lines.

/// Defines an enum with one stable word for each variant.
///
/// ```text
/// label_enum! {
///     pub enum Outcome {
///         Accepted => "accepted",
///         /// The queue has no room.
///         Full => "full",
///     }
/// }
/// ```
///
/// The enum gets `label()`, which is also how it is displayed and serialized; `from_label()`; and `ALL` and
/// `LABELS` in the order of the variants.
/// After a semicolon, one variant may hold another enum of this kind and speaks with that one's words:
/// `pub enum Handshake { Admitted => "admitted"; Refused(Cause) }`.
macro_rules! label_enum {
    (
        $(#[$meta:meta])*
        $visibility:vis enum $name:ident {
            $($(#[$variant_meta:meta])* $variant:ident => $label:literal),+ $(,)?
            $(; $(#[$outer_meta:meta])* $outer:ident($inner:ty) $(,)?)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        $visibility enum $name {
            $($(#[$variant_meta])* $variant,)+
            $($(#[$outer_meta])* $outer($inner),)?
        }

        #[allow(dead_code, reason = "not every enum is listed, nor found by its word")]
        impl $name {
            const COUNT: usize =
                [$($label),+].len() $(+ <$inner>::ALL.len())?;

            /// Every value, in the order of the variants.
            pub const ALL: [Self; Self::COUNT] = {
                let own = [$(Self::$variant),+];
                let mut all = [own[0]; Self::COUNT];
                let mut index = 0;
                while index < own.len() {
                    all[index] = own[index];
                    index += 1;
                }
                $(
                    while index < all.len() {
                        all[index] = Self::$outer(<$inner>::ALL[index - own.len()]);
                        index += 1;
                    }
                )?
                all
            };

            /// The word of every value, in the order of [`Self::ALL`].
            pub const LABELS: &'static [&'static str] = &{
                let mut labels = [""; Self::COUNT];
                let mut index = 0;
                while index < labels.len() {
                    labels[index] = Self::ALL[index].label();
                    index += 1;
                }
                labels
            };

            /// The stable word for metrics, logs and the wire.
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$variant => $label,)+
                    $(Self::$outer(inner) => <$inner>::label(inner),)?
                }
            }

            /// The value with this word.
            pub fn from_label(label: &str) -> Option<Self> {
                Self::ALL.into_iter().find(|value| value.label() == label)
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(self.label())
            }
        }

        impl ::serde::Serialize for $name {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.label())
            }
        }
    };
}
pub(crate) use label_enum;

#[cfg(test)]
mod tests;
