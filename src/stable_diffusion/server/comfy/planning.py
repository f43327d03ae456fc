"""A checked graph as one request: from the picture that is saved back to the checkpoint, node by node.

One sampler, or two: the second enlarges the first one's latent (hires fix) or goes on with it by another checkpoint
(refiner). What ComfyUI would run otherwise is a fault that names the node.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .faults import GraphFault, node_fault
from .graph import Link, Node
from .nodes import UPSCALE

SAMPLERS = ("KSampler", "KSamplerAdvanced")
LEAST_DENOISE = 0.01
EMBEDDING = re.compile(r"\bembedding:([^\s,:()\[\]]+?)(?:\.(?:pt|bin|safetensors))?(?=[\s,:()\[\]]|$)")
SIGNS = re.compile(r"(?<!\\)([\[\]|])")
"""Signs of A1111's grammar that are plain text in ComfyUI's."""


@dataclass(frozen=True)
class Plan:
    """A request made of a graph. `image` is the name of the picture to start from, and `masked` says that its
    transparent part is generated; `saves` are the nodes that show the pictures, `sampler` the one that makes them."""

    settings: Mapping[str, Any]
    saves: tuple[str, ...]
    sampler: str
    image: str | None = None
    masked: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stack:
    """What a MODEL or CLIP is: a checkpoint, adapters in order, and how many layers are read."""

    checkpoint: str
    loras: tuple[str, ...] = ()
    last_layer: int | None = None


@dataclass
class Planner:
    """Walks one graph."""

    nodes: Mapping[str, Node]
    most_steps: int
    notes: list[str] = field(default_factory=list)

    def plan(self) -> Plan:
        """The request; GraphFault where the graph is none."""
        saves = [node for node in self.nodes.values() if node.kind.is_output]
        decoders = {self._decoder(node) for node in saves}
        if len({self.nodes[each].link("samples").node for each in decoders}) > 1:
            other = saves[-1]
            raise self._fault(other, "it shows other pictures than the rest; expected those of one sampler")
        decoder = self.nodes[min(decoders)]
        self._check_vae(decoder)
        sampler = self.nodes[decoder.link("samples").node]
        if sampler.kind.name not in SAMPLERS:
            raise self._fault(decoder, f"samples come from {sampler.kind.name}; expected a sampler")
        settings, source = self._sampled(sampler)
        image, masked = self._source(source, settings)
        return Plan(settings, tuple(node.id for node in saves), sampler.id, image, masked, tuple(self.notes))

    def _fault(self, node: Node, sentence: str, name: str = "") -> GraphFault:
        return node_fault(node.id, node.kind.name, "custom_validation_failed", sentence, name)

    def _before(self, node: Node, name: str) -> Node:
        return self.nodes[node.link(name).node]

    def _decoder(self, save: Node) -> str:
        found = self._before(save, "images")
        if found.kind.name != "VAEDecode":
            raise self._fault(save, "the picture is not made in this graph; expected one of VAEDecode")
        return found.id

    def _check_vae(self, node: Node) -> None:
        """A VAE is that of a checkpoint: which one, the request says by its model."""
        if self._before(node, "vae").kind.name not in ("CheckpointLoaderSimple", "VAELoader"):
            raise self._fault(node, "expected the VAE of a checkpoint", "vae")

    # --- model and prompts --------------------------------------------------------------------------------------------

    def _stack(self, link: Link) -> Stack:
        """From a MODEL or CLIP back to its checkpoint."""
        node, loras = self.nodes[link.node], []
        layer: int | None = None
        while node.kind.name != "CheckpointLoaderSimple":
            if node.kind.name == "LoraLoader":
                loras.append(node.id)
                link = node.link(("model", "clip")[link.output])
            else:  # what is nearer to the prompt counts
                layer = node.inputs["stop_at_clip_layer"] if layer is None else layer
                link = node.link("clip")
            node = self.nodes[link.node]
        return Stack(node.id, tuple(reversed(loras)), layer)

    def _text(self, sampler: Node, name: str) -> tuple[str, Stack]:
        node = self._before(sampler, name)
        return node.inputs["text"], self._stack(node.link("clip"))

    def _sampled(self, sampler: Node) -> tuple[dict[str, Any], Node]:
        """The settings of a sampler, and the node of the latent that it starts from."""
        latent = self._before(sampler, "latent_image")
        if latent.kind.name in ("LatentUpscale", "LatentUpscaleBy"):
            return self._enlarged(sampler, latent)
        if latent.kind.name in SAMPLERS:
            return self._refined(sampler, latent)
        return {**self._common(sampler), **self._steps(sampler, latent)}, latent

    def _common(self, sampler: Node) -> dict[str, Any]:
        model = self._stack(sampler.link("model"))
        positive, clip = self._text(sampler, "positive")
        negative, other = self._text(sampler, "negative")
        if clip != other or clip.checkpoint != model.checkpoint:
            raise self._fault(sampler, "its model and its two prompts are of different checkpoints, LoRAs or layers")
        inputs = sampler.inputs
        settings: dict[str, Any] = {
            "model": self.nodes[model.checkpoint].inputs["ckpt_name"],
            "prompt": plain_prompt(positive),
            "negative_prompt": plain_prompt(negative),
            "sampler": inputs["sampler_name"],
            "schedule": inputs["scheduler"],
            "guidance": inputs["cfg"],
            "seed": inputs["seed"] if "seed" in inputs else inputs["noise_seed"],
            "loras": self._loras(model, clip),
        }
        if clip.last_layer is not None:
            settings["clip_skip"] = -clip.last_layer
        prompting: dict[str, Any] = {}
        if "(" in positive + negative:
            prompting["emphasis"] = "ComfyUI"
        if "{" in positive + negative or "__" in positive + negative:
            prompting["variants"] = False
        return {**settings, "prompting": prompting} if prompting else settings

    def _loras(self, model: Stack, clip: Stack) -> list[dict[str, Any]]:
        found = []
        for each in dict.fromkeys((*model.loras, *clip.loras)):
            inputs = self.nodes[each].inputs
            strength = inputs["strength_model"] if each in model.loras else 0.0
            text = inputs["strength_clip"] if each in clip.loras else 0.0
            found.append({"name": inputs["lora_name"], "strength": strength, "text_strength": text})
        return found

    # --- steps --------------------------------------------------------------------------------------------------------

    def _steps(self, sampler: Node, latent: Node) -> dict[str, Any]:
        """Steps, and from where in them it starts: ComfyUI makes all its steps with a lower denoise too."""
        steps, share = sampler.inputs["steps"], self._share(sampler)
        if latent.kind.name == "EmptyLatentImage":
            if share != 1:
                self.notes.append("denoise is ignored: there is no picture to start from")
            return {"steps": steps}
        if share < LEAST_DENOISE:
            raise self._fault(sampler, f"denoise is {share}; expected at least {LEAST_DENOISE}", "denoise")
        if sampler.kind.name == "KSampler":
            steps = min(max(self.most_steps, steps), round(steps / share))
        return {"steps": steps, "strength": share}

    def _share(self, sampler: Node) -> float:
        """How much of the noise is there at the start, 1 for all."""
        inputs = sampler.inputs
        if sampler.kind.name == "KSampler":
            return float(inputs["denoise"])
        if inputs["end_at_step"] < inputs["steps"] or inputs["add_noise"] == "disable":
            sentence = "it leaves the last steps, or the noise, to another sampler, which there is not"
            raise self._fault(sampler, sentence)
        return float(1 - min(inputs["start_at_step"], inputs["steps"]) / inputs["steps"])

    def _enlarged(self, sampler: Node, latent: Node) -> tuple[dict[str, Any], Node]:
        """Hires fix: a sampler, its latent enlarged, and a second one."""
        first = self._before(latent, "samples")
        if first.kind.name not in SAMPLERS:
            raise self._fault(latent, f"it enlarges a latent of {first.kind.name}; expected one of a sampler")
        settings, source = self._sampled(first)
        if source.kind.name != "EmptyLatentImage" or "hires" in settings:
            raise self._fault(latent, "it enlarges what began with a picture, or was enlarged before")
        second = self._common(sampler)
        for name in ("model", "prompt", "negative_prompt", "loras", "clip_skip"):
            if second.get(name) != settings.get(name):
                raise self._fault(sampler, f"its {name} is not that of the first sampler; expected the same")
        for name in ("seed", "guidance", "sampler", "schedule"):
            if second[name] != settings[name]:
                self.notes.append(f"the second pass has the {name} of the first one: {settings[name]}")
        hires = {"scale": self._scale(latent, source), "steps": sampler.inputs["steps"]}
        share = max(self._share(sampler), LEAST_DENOISE)
        if sampler.kind.name == "KSampler" and share < 1:
            hires["steps"] = min(max(self.most_steps, hires["steps"]), round(hires["steps"] / share))
        upscaler = UPSCALE[latent.inputs["upscale_method"]]
        return {**settings, "hires": {**hires, "strength": share, "upscaler": upscaler}}, source

    def _scale(self, latent: Node, source: Node) -> float:
        if latent.kind.name == "LatentUpscaleBy":
            return float(latent.inputs["scale_by"])
        sides = [(latent.inputs[name], source.inputs[name]) for name in ("width", "height")]
        scales = [to / start for to, start in sides if to]  # 0 keeps the proportions
        if not scales or abs(scales[0] - scales[-1]) * max(start for _, start in sides) >= 8:
            raise self._fault(latent, "its width and height are not in the proportions of the first latent")
        return float(scales[0])

    def _refined(self, sampler: Node, first: Node) -> tuple[dict[str, Any], Node]:
        """Two advanced samplers, of which the second goes on where the first one ends."""
        if {sampler.kind.name, first.kind.name} != {"KSamplerAdvanced"}:
            raise self._fault(sampler, "its latent comes from another sampler as it is; expected two KSamplerAdvanced")
        start, end, steps = sampler.inputs["start_at_step"], first.inputs["end_at_step"], first.inputs["steps"]
        whole = sampler.inputs["end_at_step"] >= steps == sampler.inputs["steps"]
        if start != end or not whole or sampler.inputs["add_noise"] == "enable" or not 0 < start < steps:
            raise self._fault(sampler, "it does not go on where the first one ends; expected equal steps, no new noise")
        latent = self._before(first, "latent_image")
        if latent.kind.name != "EmptyLatentImage" or first.inputs["start_at_step"]:
            raise self._fault(first, "what a refiner goes on with begins as noise; expected an EmptyLatentImage")
        model = self.nodes[self._stack(sampler.link("model")).checkpoint].inputs["ckpt_name"]
        if self._text(sampler, "positive")[0] != self._text(first, "positive")[0]:
            self.notes.append("the refiner reads the prompt of the first sampler")
        settings = {**self._common(first), "steps": steps}
        if model != settings["model"]:
            settings["refiner"] = {"model": model, "switch": start / steps}
        return settings, latent

    # --- the first latent ---------------------------------------------------------------------------------------------

    def _source(self, node: Node, settings: dict[str, Any]) -> tuple[str | None, str | None]:
        """Size and count, or the picture to start from and the one whose transparency is its mask."""
        if node.kind.name == "EmptyLatentImage":
            inputs = node.inputs
            settings |= {"width": inputs["width"], "height": inputs["height"], "count": inputs["batch_size"]}
            return None, None
        masked = None
        if node.kind.name == "SetLatentNoiseMask":
            masked = self._before(node, "mask").inputs["image"]
            node = self._before(node, "samples")
        if node.kind.name != "VAEEncode":
            raise self._fault(node, "expected VAEEncode, EmptyLatentImage or SetLatentNoiseMask as the first latent")
        self._check_vae(node)
        loaded = self._before(node, "pixels")
        if loaded.kind.name != "LoadImage":
            raise self._fault(node, "its picture is made in this graph; expected one of LoadImage", "pixels")
        return loaded.inputs["image"], masked


def plain_prompt(text: str) -> str:
    """A prompt of ComfyUI's grammar in ours: embeddings by their names alone, square brackets and bars as text."""
    return SIGNS.sub(r"\\\1", EMBEDDING.sub(r"\1", text))
