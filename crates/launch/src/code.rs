//! Where a variant's mask and modifier come from.

use regard_engine::isa::Door;
#[cfg(feature = "shipped")]
use regard_engine::isa::scalar::Scalar;
use regard_ir::variant::Variant;
use regard_runtime::code::{AnyCode, Code};
use regard_runtime::interpreter::LaneProgram;

/// Where a kernel's variant code comes from. Both give the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A lane program, compiled from the spec just now.
    Loaded,
    /// A module that was generated ahead of time.
    Generated,
}

impl Source {
    /// Every source.
    pub const ALL: [Source; 2] = [Source::Loaded, Source::Generated];

    /// As it is written on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Source::Loaded => "loaded",
            Source::Generated => "generated",
        }
    }
}

/// A variant's mask and modifier.
#[derive(Clone, Debug)]
pub enum VariantCode {
    /// A lane program.
    Loaded(LaneProgram),
    /// The module of an identity, which exists. It need not be the variant's own.
    #[cfg(feature = "shipped")]
    Generated(regard_ir::identity::Identity),
}

impl VariantCode {
    /// The code of a variant from the source that is asked for, else generated where there is a module of its expressions. `None`
    /// if there is nothing from that source.
    pub fn new(variant: &Variant<'_>, asked: Option<Source>) -> Option<Self> {
        if asked != Some(Source::Loaded)
            && let Some(code) = Self::generated(variant)
        {
            return Some(code);
        }
        (asked != Some(Source::Generated)).then(|| Self::Loaded(LaneProgram::new(variant)))
    }

    #[cfg(feature = "shipped")]
    fn generated(variant: &Variant<'_>) -> Option<Self> {
        // A module has code for every instruction set or for none.
        if regard_kernels::find::<Scalar>(variant.identity).is_some() {
            return Some(Self::Generated(variant.identity));
        }
        let (_, module) = regard_kernels::ALL.iter().find(|(_, module)| variant.has_code_of(module))?;
        Some(Self::Generated(module.identity))
    }

    #[cfg(not(feature = "shipped"))]
    fn generated(_: &Variant<'_>) -> Option<Self> {
        None
    }

    /// Which it is.
    pub fn source(&self) -> Source {
        match self {
            VariantCode::Loaded(_) => Source::Loaded,
            #[cfg(feature = "shipped")]
            VariantCode::Generated(_) => Source::Generated,
        }
    }
}

impl AnyCode for VariantCode {
    fn on<L: Door>(&self) -> &dyn Code<L> {
        match self {
            VariantCode::Loaded(program) => program,
            #[cfg(feature = "shipped")]
            VariantCode::Generated(identity) => {
                regard_kernels::find(*identity).expect("`new` found a module of this identity")
            }
        }
    }
}
