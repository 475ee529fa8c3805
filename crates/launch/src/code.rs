//! Where a variant's mask and modifier come from.

use regard_engine::isa::Door;
#[cfg(feature = "shipped")]
use regard_engine::isa::scalar::Scalar;
#[cfg(feature = "shipped")]
use regard_ir::expr::Var;
#[cfg(feature = "shipped")]
use regard_ir::identity::Identity;
use regard_ir::variant::Variant;
#[cfg(feature = "shipped")]
use regard_runtime::code::Place;
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

/// Where a modifier and a mask are, mostly in one module. Scores are modified by the former, and masked by the latter after that.
#[cfg(feature = "shipped")]
#[derive(Clone, Copy, Debug)]
pub struct Modules {
    modifier: Identity,
    mask: Identity,
}

#[cfg(feature = "shipped")]
impl Modules {
    const fn one(module: Identity) -> Self {
        Self { modifier: module, mask: module }
    }
}

#[cfg(feature = "shipped")]
fn module<L: Door>(identity: Identity) -> &'static dyn Code<L> {
    regard_kernels::find(identity).expect("`VariantCode::new` found a module of this identity")
}

#[cfg(feature = "shipped")]
impl<L: Door> Code<L> for Modules {
    fn modifies(&self) -> bool {
        module::<L>(self.modifier).modifies()
    }

    fn scratch_len(&self, width: usize) -> usize {
        let [modifier, mask] = [self.modifier, self.mask].map(|it| module::<L>(it).scratch_len(width));
        modifier.max(mask)
    }

    fn apply(&self, lanes: L, place: &Place<'_>, scores: &mut [f32], masked: bool, scratch: &mut [i32]) {
        module(self.modifier).apply(lanes, place, scores, false, scratch);
        if masked {
            module(self.mask).apply(lanes, place, scores, true, scratch);
        }
    }

    fn allow(&self, lanes: L, place: &Place<'_>, allowed: &mut [i32], scratch: &mut [i32]) {
        module(self.mask).allow(lanes, place, allowed, scratch);
    }

    fn teaches(&self) -> Option<&dyn Code<L>> {
        module(self.mask).teaches()
    }
}

/// A variant's mask and modifier.
#[derive(Clone, Debug)]
pub enum VariantCode {
    /// A lane program.
    Loaded(LaneProgram),
    /// Modules, which need not be of the variant's own identity.
    #[cfg(feature = "shipped")]
    Generated(Modules),
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
            return Some(Self::Generated(Modules::one(variant.identity)));
        }
        let all = || regard_kernels::ALL.iter().map(|(_, module)| module);
        if let Some(module) = all().find(|module| variant.has_code_of(module)) {
            return Some(Self::Generated(Modules::one(module.identity)));
        }
        let modifier = all().find(|module| variant.has_free_modifier_of(module))?;
        let mask = all().find(|module| module.modify.is_var(Var::S) && variant.has_mask_of(module))?;
        Some(Self::Generated(Modules { modifier: modifier.identity, mask: mask.identity }))
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
            VariantCode::Generated(modules) if modules.modifier == modules.mask => module(modules.mask),
            #[cfg(feature = "shipped")]
            VariantCode::Generated(modules) => modules,
        }
    }
}
