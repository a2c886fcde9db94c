//! The two declarations configuration structs are made with.

/// Declares a configuration struct with its defaults and documentation.
///
/// A field is `/// doc`, name, type, `= default`, `, "unit"`, `, live` or `, restart`. An optional trailing
/// `check function;` names a `fn(&Self) -> Vec<Problem>` with keys relative to the struct.
///
/// ```
/// use linnet_runtime::config::{Period, Problem};
///
/// linnet_runtime::config! {
///     /// The group service.
///     pub struct Config {
///         /// Members; above it, fan-out goes by subject. Higher costs the owner one frame a gateway and message.
///         pub small_group: u32 = 200, "members", restart;
///         /// Longest wait of a merged write.
///         pub flush_window: Period = Period::ms(20), "", live;
///     }
///     check problems;
/// }
///
/// fn problems(config: &Config) -> Vec<Problem> {
///     if config.small_group == 0 { vec![Problem::new("small_group", "must be at least 1")] } else { vec![] }
/// }
/// ```
#[macro_export]
macro_rules! config {
    (
        $(#[doc = $struct_doc:literal])*
        $vis:vis struct $name:ident {
            $(
                $(#[doc = $doc:literal])*
                $field_vis:vis $field:ident : $ty:ty = $default:expr, $unit:literal, $change:ident;
            )*
        }
        $(check $check:path;)?
    ) => {
        $(#[doc = $struct_doc])*
        #[derive(Clone, Debug, ::serde::Serialize, ::serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        $vis struct $name {
            $($(#[doc = $doc])* $field_vis $field: $ty,)*
        }

        impl ::std::default::Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        impl $crate::config::Documented for $name {
            fn docs() -> ::std::vec::Vec<$crate::config::KeyDoc> {
                let defaults = <Self as ::std::default::Default>::default();
                ::std::vec![$(
                    $crate::config::KeyDoc::new(
                        stringify!($field),
                        stringify!($ty),
                        &defaults.$field,
                        $unit,
                        concat!($($doc, "\n"),*),
                        $crate::config!(@change $change),
                    ),
                )*]
            }

            $(fn problems(&self) -> ::std::vec::Vec<$crate::config::Problem> {
                $check(self)
            })?
        }
    };
    (@change live) => { $crate::config::Change::Live };
    (@change restart) => { $crate::config::Change::Restart };
}

/// Puts configuration structs together, each as a section named like its field.
///
/// ```
/// linnet_runtime::sections! {
///     /// Everything `serve` reads.
///     pub struct Root {
///         /// Logs and traces.
///         pub log: linnet_runtime::telemetry::LogConfig,
///     }
/// }
/// ```
#[macro_export]
macro_rules! sections {
    (
        $(#[doc = $struct_doc:literal])*
        $vis:vis struct $name:ident {
            $($(#[doc = $doc:literal])* $field_vis:vis $field:ident : $ty:ty,)*
        }
        $(check $check:path;)?
    ) => {
        $(#[doc = $struct_doc])*
        #[derive(Clone, Debug, Default, ::serde::Serialize, ::serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        $vis struct $name {
            $($(#[doc = $doc])* $field_vis $field: $ty,)*
        }

        impl $crate::config::Documented for $name {
            fn docs() -> ::std::vec::Vec<$crate::config::KeyDoc> {
                let mut docs = ::std::vec::Vec::new();
                $(docs.extend(
                    <$ty as $crate::config::Documented>::docs().into_iter().map(|doc| doc.within(stringify!($field))),
                );)*
                docs
            }

            fn problems(&self) -> ::std::vec::Vec<$crate::config::Problem> {
                let mut problems = ::std::vec::Vec::new();
                $(problems.extend(
                    $crate::config::Documented::problems(&self.$field)
                        .into_iter()
                        .map(|problem| problem.within(stringify!($field))),
                );)*
                $(problems.extend($check(self));)?
                problems
            }
        }
    };
}
