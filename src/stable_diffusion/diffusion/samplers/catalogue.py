"""The list of samplers: what each one is, needs and is called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...types import Step
from . import ancestral, dpm_solver, exponential, extended, few_step, guided, multistep, ode, restart, sde


@dataclass(frozen=True, kw_only=True)
class SamplerInfo:
    """A sampler and what to know of it.

    label      A1111's display name.
    order      order of convergence with noise switched off.
    calls      denoiser calls a step (the last step may take one less, the first of plms takes one more).
    stochastic adds noise with default options.
    brownian   its noise should come from a Brownian path.
    automatic  the schedule that A1111's "Automatic" means (for lcm and tcd: the trailing one they were distilled on).
    presets    other names that mean this sampler with these options.
    paired     uses the unguided estimate too, so that the negative prompt counts at guidance 1 as well.
    unit       what guidance is divided by: A1111 gives its CFG++ sampler the scales of ordinary guidance, 12.5 for 1.
    own_steps  chooses its own levels between the ends of those given.
    skips_last its levels are those of one step more, without the lowest above 0, from which its last step would be
               short: so A1111 runs it, and ComfyUI the first two.
    """

    id: str
    function: Callable[..., Iterator[Step]]
    label: str
    order: int
    calls: int = 1
    stochastic: bool = False
    brownian: bool = False
    automatic: str = "normal"
    aliases: tuple[str, ...] = ()
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    paired: bool = False
    unit: float = 1.0
    own_steps: bool = False
    skips_last: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """Option names and their defaults."""
        parameters = inspect.signature(self.function).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "noise"}


INFOS = (
    SamplerInfo(
        id="euler",
        function=ode.euler,
        label="Euler",
        order=1,
        aliases=("EulerDiscreteScheduler", "FlowMatchEulerDiscreteScheduler", "EDMEulerScheduler", "flow_match_euler"),
    ),
    SamplerInfo(
        id="euler_ancestral",
        function=ancestral.euler_ancestral,
        label="Euler a",
        order=1,
        stochastic=True,
        aliases=("EulerAncestralDiscreteScheduler",),
    ),
    SamplerInfo(
        id="heun",
        function=ode.heun,
        label="Heun",
        order=2,
        calls=2,
        aliases=("HeunDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", "flow_match_heun"),
    ),
    SamplerInfo(
        id="dpm_2",
        function=ode.dpm_2,
        label="DPM2",
        order=2,
        calls=2,
        automatic="karras",
        skips_last=True,
        aliases=("KDPM2DiscreteScheduler", "kdpm_2"),
    ),
    SamplerInfo(
        id="dpm_2_ancestral",
        function=ancestral.dpm_2_ancestral,
        label="DPM2 a",
        order=2,
        calls=2,
        stochastic=True,
        automatic="karras",
        skips_last=True,
        aliases=("KDPM2AncestralDiscreteScheduler", "kdpm_2_a"),
    ),
    SamplerInfo(
        id="lms", function=multistep.lms, label="LMS", order=4, aliases=("LMSDiscreteScheduler", "ipndm_v", "IPNDM_V")
    ),
    SamplerInfo(
        id="dpmpp_2s_ancestral",
        function=ancestral.dpmpp_2s_ancestral,
        label="DPM++ 2S a",
        order=2,
        calls=2,
        stochastic=True,
        automatic="karras",
        presets={"DPM++ 2S": {"eta": 0.0}, "DPMSolverSinglestepScheduler": {"eta": 0.0}},
    ),
    SamplerInfo(
        id="dpmpp_2m",
        function=multistep.dpmpp_2m,
        label="DPM++ 2M",
        order=2,
        automatic="karras",
        aliases=("DPMSolverMultistepScheduler", "EDMDPMSolverMultistepScheduler"),
    ),
    SamplerInfo(
        id="dpmpp_sde",
        function=sde.dpmpp_sde,
        label="DPM++ SDE",
        order=2,
        calls=2,
        stochastic=True,
        brownian=True,
        automatic="karras",
        aliases=("dpmpp_sde_gpu", "DPMSolverSDEScheduler"),
    ),
    SamplerInfo(
        id="dpmpp_2m_sde",
        function=sde.dpmpp_2m_sde,
        label="DPM++ 2M SDE",
        order=2,
        stochastic=True,
        brownian=True,
        automatic="exponential",
        aliases=("dpmpp_2m_sde_gpu",),
        presets={
            "DPM++ 2M SDE Heun": {"solver": "heun"},
            "dpmpp_2m_sde_heun_gpu": {"solver": "heun"},
        },
    ),
    SamplerInfo(
        id="dpmpp_3m_sde",
        function=sde.dpmpp_3m_sde,
        label="DPM++ 3M SDE",
        order=3,
        stochastic=True,
        brownian=True,
        automatic="exponential",
        skips_last=True,
        aliases=("dpmpp_3m_sde_gpu",),
    ),
    SamplerInfo(
        id="ddim",
        function=ancestral.ddim,
        label="DDIM",
        order=1,
        automatic="ddim_uniform",
        aliases=("DDIMScheduler",),
    ),
    SamplerInfo(id="ddpm", function=ancestral.ddpm, label="DDPM", order=1, stochastic=True, aliases=("DDPMScheduler",)),
    SamplerInfo(
        id="plms",
        function=multistep.plms,
        label="PLMS",
        order=2,
        automatic="ddim_uniform",
        aliases=("PNDM", "PNDMScheduler"),
    ),
    SamplerInfo(
        id="uni_pc",
        function=multistep.uni_pc,
        label="UniPC",
        order=2,
        automatic="ddim_uniform",
        aliases=("UniPCMultistepScheduler",),
        presets={"UniPC bh1": {"variant": "bh1"}, "UniPC bh2": {"variant": "bh2"}},
    ),
    SamplerInfo(
        id="lcm",
        function=few_step.lcm,
        label="LCM",
        order=1,
        stochastic=True,
        automatic="sgm_uniform",
        aliases=("LCMScheduler",),
    ),
    SamplerInfo(
        id="tcd",
        function=few_step.tcd,
        label="TCD",
        order=1,
        stochastic=True,
        automatic="sgm_uniform",
        aliases=("TCDScheduler",),
    ),
    SamplerInfo(
        id="dpm_fast",
        function=dpm_solver.dpm_fast,
        label="DPM fast",
        order=3,
        own_steps=True,
    ),
    SamplerInfo(
        id="dpm_adaptive",
        function=dpm_solver.dpm_adaptive,
        label="DPM adaptive",
        order=3,
        calls=3,
        own_steps=True,
        aliases=("dpm_ad",),
    ),
    SamplerInfo(
        id="restart",
        function=restart.restart,
        label="Restart",
        order=2,
        calls=2,
        stochastic=True,
        automatic="karras",
        aliases=("restart_sampler", "sample_restart"),
    ),
    SamplerInfo(
        id="euler_cfg_pp",
        function=guided.euler_cfg_pp,
        label="Euler CFG++",
        order=1,
        paired=True,
        aliases=("euler_cfgpp",),
    ),
    SamplerInfo(
        id="euler_ancestral_cfg_pp",
        function=guided.euler_ancestral_cfg_pp,
        label="Euler a CFG++",
        order=1,
        stochastic=True,
        paired=True,
        aliases=("euler_a_cfg_pp",),
    ),
    SamplerInfo(
        id="ddim_cfg_pp",
        function=guided.ddim_cfg_pp,
        label="DDIM CFG++",
        order=1,
        automatic="ddim_uniform",
        paired=True,
        unit=12.5,
        aliases=("ddim_cfgpp",),
    ),
    SamplerInfo(
        id="deis",
        function=exponential.deis,
        label="DEIS",
        order=3,
        aliases=("deis_multistep", "DEISMultistepScheduler"),
    ),
    SamplerInfo(
        id="ipndm",
        function=exponential.ipndm,
        label="IPNDM",
        order=2,
        aliases=("IPNDMScheduler",),
    ),
    SamplerInfo(
        id="res_multistep",
        function=exponential.res_multistep,
        label="RES multistep",
        order=2,
        aliases=("Res Multistep", "refined exponential solver"),
    ),
    SamplerInfo(
        id="res_multistep_ancestral",
        function=exponential.res_multistep_ancestral,
        label="RES multistep a",
        order=2,
        stochastic=True,
        aliases=("res_multistep_ancestral",),
    ),
    SamplerInfo(
        id="er_sde",
        function=extended.er_sde,
        label="ER-SDE",
        order=3,
        stochastic=True,
        aliases=("er_sde_solver",),
    ),
    SamplerInfo(
        id="sa_solver",
        function=extended.sa_solver,
        label="SA-Solver",
        order=2,
        stochastic=True,
        aliases=("SASolverScheduler",),
    ),
)
