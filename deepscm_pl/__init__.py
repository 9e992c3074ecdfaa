"""Deep structural causal models of images, with PyTorch Lightning and Pyro."""

from typing import TYPE_CHECKING, Any

from deepscm_pl import moved
from deepscm_pl.lazy import first_use

if TYPE_CHECKING:
    from deepscm_pl.answers import Answer as Answer
    from deepscm_pl.callbacks import (
        AssociationReport as AssociationReport,
        AttributeDensities as AttributeDensities,
        ConditionalSampleGrid as ConditionalSampleGrid,
        CounterfactualGrid as CounterfactualGrid,
        EvaluationReport as EvaluationReport,
        FigureCallback as FigureCallback,
        FiniteCheck as FiniteCheck,
        InterventionGrid as InterventionGrid,
        LatentTraversal as LatentTraversal,
        NoiseHistograms as NoiseHistograms,
        ReconstructionGrid as ReconstructionGrid,
        RepeatableRun as RepeatableRun,
        SampleGrid as SampleGrid,
        SaveOnTermination as SaveOnTermination,
        SkipSteps as SkipSteps,
    )
    from deepscm_pl.checkpoints import (
        Checkpoint as Checkpoint,
        Pretrained as Pretrained,
        StoredObservations as StoredObservations,
        TrainedModel as TrainedModel,
        export_model as export_model,
        from_pretrained as from_pretrained,
        load as load,
        load_data as load_data,
        read_checkpoint as read_checkpoint,
    )
    from deepscm_pl.data import (
        BrainMRIDataModule as BrainMRIDataModule,
        BrainWorld as BrainWorld,
        CausalData as CausalData,
        CausalDataModule as CausalDataModule,
        ColourWorld as ColourWorld,
        DigitsDataModule as DigitsDataModule,
        DigitWorld as DigitWorld,
        InMemoryDataset as InMemoryDataset,
        KnownWorld as KnownWorld,
        MorphoMNISTDataModule as MorphoMNISTDataModule,
        Placement as Placement,
        SourceSplits as SourceSplits,
        Split as Split,
        SyntheticBrainDataModule as SyntheticBrainDataModule,
        TableDataModule as TableDataModule,
        TableSettings as TableSettings,
        ThicknessIntensityFallingWorld as ThicknessIntensityFallingWorld,
        ThicknessIntensitySlantWorld as ThicknessIntensitySlantWorld,
        ThicknessIntensityWorld as ThicknessIntensityWorld,
        ThicknessSlantWorld as ThicknessSlantWorld,
        ThicknessWidthWorld as ThicknessWidthWorld,
        generate_brain as generate_brain,
        generate_morphomnist as generate_morphomnist,
    )
    from deepscm_pl.effects import (
        EffectEstimate as EffectEstimate,
        Effects as Effects,
        EffectSettings as EffectSettings,
        Outcome as Outcome,
        SmallestChanges as SmallestChanges,
        average_effect as average_effect,
        causes_of_event as causes_of_event,
        contributions_of_changes as contributions_of_changes,
        contributions_to_difference as contributions_to_difference,
        contributions_to_rows as contributions_to_rows,
        contributions_to_variance as contributions_to_variance,
        individual_effects as individual_effects,
        mediated_effects as mediated_effects,
        smallest_changes as smallest_changes,
    )
    from deepscm_pl.ensemble import (
        Ensemble as Ensemble,
        Spread as Spread,
        stacking_weights as stacking_weights,
    )
    from deepscm_pl.graph import CausalGraph as CausalGraph
    from deepscm_pl.interventions import (
        Conditional as Conditional,
        Draw as Draw,
        OfFactual as OfFactual,
        Where as Where,
        format_do as format_do,
        parse_do as parse_do,
    )
    from deepscm_pl.likelihoods import (
        CovarianceGaussian as CovarianceGaussian,
        DiscretisedGaussian as DiscretisedGaussian,
        DiscretisedLikelihood as DiscretisedLikelihood,
        DiscretisedLogisticMixture as DiscretisedLogisticMixture,
        FixedVarianceGaussian as FixedVarianceGaussian,
        GaussianLikelihood as GaussianLikelihood,
        LaplaceLikelihood as LaplaceLikelihood,
        Likelihood as Likelihood,
        LowRankGaussian as LowRankGaussian,
        PredictedCovarianceGaussian as PredictedCovarianceGaussian,
        PredictedLowRankGaussian as PredictedLowRankGaussian,
        PredictedVarianceGaussian as PredictedVarianceGaussian,
        SharedCovarianceGaussian as SharedCovarianceGaussian,
        SharedLowRankGaussian as SharedLowRankGaussian,
        SharedVarianceGaussian as SharedVarianceGaussian,
    )
    from deepscm_pl.mechanisms import (
        AdditiveNoise as AdditiveNoise,
        AdversarialLoss as AdversarialLoss,
        AdversarialNetworks as AdversarialNetworks,
        AffineFlow as AffineFlow,
        AutoregressiveFlow as AutoregressiveFlow,
        Bernoulli as Bernoulli,
        Brightness as Brightness,
        Categorical as Categorical,
        CellMechanism as CellMechanism,
        ConditionalVAE as ConditionalVAE,
        Constant as Constant,
        Context as Context,
        CouplingFlow as CouplingFlow,
        Drawn as Drawn,
        Evidence as Evidence,
        Flow as Flow,
        FlowMatching as FlowMatching,
        Formula as Formula,
        Heteroscedastic as Heteroscedastic,
        HierarchicalVAE as HierarchicalVAE,
        ImageMechanism as ImageMechanism,
        ImplicitMechanism as ImplicitMechanism,
        LatentEvidence as LatentEvidence,
        LatentImageMechanism as LatentImageMechanism,
        Mechanism as Mechanism,
        Modified as Modified,
        MultiscaleFlow as MultiscaleFlow,
        Ordinal as Ordinal,
        SplineFlow as SplineFlow,
        SteppedFlow as SteppedFlow,
        VectorFlow as VectorFlow,
        ZeroInflatedFlow as ZeroInflatedFlow,
    )
    from deepscm_pl.nn import (
        ConvolutionalConditioner as ConvolutionalConditioner,
        ConvolutionalDecoder as ConvolutionalDecoder,
        ConvolutionalEncoder as ConvolutionalEncoder,
        Overlay as Overlay,
        ParameterNetwork as ParameterNetwork,
        PyramidDecoder as PyramidDecoder,
        PyramidEncoder as PyramidEncoder,
        ResidualBlock as ResidualBlock,
        ResidualClassifier as ResidualClassifier,
        ResidualDecoder as ResidualDecoder,
        ResidualEncoder as ResidualEncoder,
        TemplateDecoder as TemplateDecoder,
        UNet as UNet,
    )
    from deepscm_pl.overlap import (
        Overlap as Overlap,
        OverlapEstimator as OverlapEstimator,
        OverlapThresholds as OverlapThresholds,
    )
    from deepscm_pl.reaction import (
        ImageReaction as ImageReaction,
        ReactionThresholds as ReactionThresholds,
        image_reactions as image_reactions,
    )
    from deepscm_pl.scm import (
        StructuralCausalModel as StructuralCausalModel,
        summarise as summarise,
    )
    from deepscm_pl.training import (
        BoundConstraint as BoundConstraint,
        CounterfactualObjective as CounterfactualObjective,
        CounterfactualTuning as CounterfactualTuning,
        DeepSCM as DeepSCM,
        EvidenceLowerBoundObjective as EvidenceLowerBoundObjective,
        ImageClassifier as ImageClassifier,
        ImageRegressor as ImageRegressor,
        ImportanceWeightedObjective as ImportanceWeightedObjective,
        Objective as Objective,
        OneCycle as OneCycle,
        OwnPredictor as OwnPredictor,
        TrainedPredictor as TrainedPredictor,
    )
    from deepscm_pl.transforms import (
        ActivationNormalisation as ActivationNormalisation,
        AffineCoupling as AffineCoupling,
        ChannelMixing as ChannelMixing,
        ConditionerFactory as ConditionerFactory,
        Constraint as Constraint,
        Dequantise as Dequantise,
        ImageBijection as ImageBijection,
        Interval as Interval,
        Logit as Logit,
        MultiscaleBijection as MultiscaleBijection,
        Positive as Positive,
        RationalQuadraticSpline as RationalQuadraticSpline,
        Real as Real,
    )
    from deepscm_pl.variables import (
        Do as Do,
        Domain as Domain,
        Noise as Noise,
        Variable as Variable,
        Variables as Variables,
    )
    from deepscm_pl.worlds import (
        known_world as known_world,
        read_world as read_world,
        write_world as write_world,
    )

    __version__: str

_first_use = first_use(__name__)
moved.install()


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version(__name__)
    return _first_use(name)
