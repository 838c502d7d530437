"""The operations of TensorFlow that only compute: what a SavedModel may hold without being trusted.

They make tensors of tensors, or change variables, tables and generators of random numbers of their own graph.
None reads or writes files, runs Python or machine code that it brings along, talks to other processes, shows
memory that it has not written, or ends the process. Not here, although they look it: `ImmutableConst` and
`FixedUnigramCandidateSampler` (they read files), `Empty` and `FakeParam` (memory as it was; XLA's gradients
of a branch have the latter, inference has none), `InplaceUpdate` (other tensors' memory), `XlaCallModule` (a
program in a string), all of tf.data (a model for inference needs none of it).
"""

from __future__ import annotations

import re

# Regular expressions for whole names, without the version at their end (`AddV2` is `Add`).
_ALLOWED = {
    "values and shapes": r"""
        BroadcastArgs BroadcastGradientArgs BroadcastTo Concat ConcatOffset Const Diag DiagPart EditDistance
        EnsureShape ExpandDims Fill Fingerprint Gather GatherNd GuaranteeConst Identity IdentityN
        InvertPermutation LinSpace ListDiff LowerBound UpperBound MirrorPad MirrorPadGrad NoOp OneHot OnesLike
        Pack Pad Parallel(Concat|DynamicStitch) Placeholder PlaceholderWithDefault PreventGradient Range Rank
        Reshape Reverse ReverseSequence Roll Scatter(Nd|NdNonAliasingAdd) Select Shape ShapeN Size Slice Split
        SplitV Squeeze StopGradient StridedSlice StridedSliceGrad Tile TileGrad Transpose Unique
        UniqueWithCounts Unpack UnravelIndex Where ZerosLike Dynamic(Partition|Stitch) ConjugateTranspose
        (Space|Batch|Depth)To(Batch|Space|Depth)(ND)? DataFormat(DimMap|VecPermute) Bitcast Cast
        TensorScatter(Add|Max|Min|Sub|Update) TensorStridedSliceUpdate
    """,
    "control flow, lists and checks": r"""
        Case For If While Stateless(Case|If|While) (Stateful)?PartitionedCall MapDefun DeviceIndex
        (Ref)?(Enter|Exit|Merge|NextIteration|Select|Switch) RefIdentity LoopCond ControlTrigger Assert
        CheckNumerics Empty(TensorList|TensorMap) TensorList\w+ TensorMap\w+ TensorArray\w*
        CompositeTensorVariant(From|To)Components
    """,
    "variables": r"""
        VarHandleOp ReadVariableOp VarIsInitializedOp VariableShape DisableCopyOnRead
        Assign(Add|Sub)?VariableOp Variable IsVariableInitialized Assign(Add|Sub)? CountUpTo ResourceCountUpTo
        (Resource)?Scatter(Nd)?(Add|Div|Max|Min|Mul|Sub|Update) ResourceGather(Nd)? ResourceStridedSliceAssign
        StridedSliceAssign (Resource)?(Sparse)?Apply[A-Z]\w+
    """,
    "tables": r"""
        (Anonymous)?(Hash|MutableDenseHash|MutableHash)Table(OfTensors)? InitializeTable
        LookupTable(Export|Find|Import|Insert|Remove|Size) DestroyResourceOp
    """,
    "arithmetic": r"""
        Abs AccumulateN Acosh? Add AddN All Angle Any ApproximateEqual ApproxTopK ArgMax ArgMin Asinh? Atan
        Atan2 Atanh Betainc Bessel[IJKY][01]e? Bincount Bitwise(And|Or|Xor) Bucketize Ceil ClipByValue Complex
        ComplexAbs Conj Cosh? Cross Cumprod Cumsum CumulativeLogsumexp Dawsn DenseBincount Digamma Div
        DivNoNan Equal Erf Erfc Erfinv EuclideanNorm Exp Expint Expm1 Floor FloorDiv FloorMod Fresnel(Cos|Sin)
        Greater(Equal)? HistogramFixedWidth Igamma IgammaGradA Igammac Imag InTopK Inv InvGrad Invert
        Is(Finite|Inf|Nan) IsotonicRegression KthOrderStatistic L2Loss LeftShift Less(Equal)? Lgamma Log Log1p
        Logical(And|Not|Or) Max Maximum Mean Min Minimum Mod Mul MulNoNan Ndtri Neg NextAfter NotEqual
        NthElement Polygamma PopulationCount Pow Prod Real RealDiv Reciprocal(Grad)? RightShift Rint Round
        Rsqrt(Grad)? Segment(Max|Mean|Min|Prod|Sum) UnsortedSegment(Max|Min|Prod|Sum) Sign Sinh? Spence
        Sqrt(Grad)? Square SquaredDifference Sub Sum Tan Tanh(Grad)? TopK Truncate(Div|Mod) Xdivy Xlog1py
        Xlogy Zeta
    """,
    "matrices and transforms": r"""
        Einsum (Batch)?MatMul TridiagonalMatMul BandedTriangularSolve TridiagonalSolve Cholesky(Grad)? Eig
        SelfAdjointEig Svd Qr Lu LogMatrixDeterminant
        Matrix(BandPart|Determinant|Diag|DiagPart|Exponential|Inverse|Logarithm|SetDiag|Solve|SolveLs)
        Matrix(SquareRoot|TriangularSolve) BatchMatrix[A-Z]\w+ Batch(Cholesky|CholeskyGrad|SelfAdjointEig|Svd)
        (Batch)?I?R?FFT(2D|3D|ND)?
    """,
    "layers": r"""
        BiasAdd(Grad)? Conv Conv[23]D(Backprop(Filter|Input))? DepthwiseConv2dNative(Backprop(Filter|Input))?
        Dilation2D(Backprop(Filter|Input))? FusedBatchNorm(Grad)? BatchNormWithGlobalNormalization(Grad)?
        FusedPadConv2D FusedResizeAndPadConv2D (Avg|Max)Pool(3D)?(Grad){0,2}(WithArgmax)? MaxPoolWithArgmax
        Fractional(Avg|Max)Pool(Grad)? LRN(Grad)?
        (Elu|LeakyRelu|Relu|Relu6|Selu|Sigmoid|Softplus|Softsign)(Grad)? Softmax LogSoftmax
        (Sparse)?SoftmaxCrossEntropyWithLogits Block(LSTM|LSTMGrad) GRUBlockCell(Grad)? LSTMBlockCell(Grad)?
        CudnnRNN\w* CTC(BeamSearchDecoder|GreedyDecoder|Loss)
        _Fused(BatchNormEx|Conv2D|DepthwiseConv2dNative|MatMul)
    """,
    "fewer bits": r"""
        FakeQuant\w+ QuantizeAndDequantize\w* Quantize QuantizeDownAndShrinkRange Quantized[A-Z]\w+ Dequantize
        Requantize Requantiz(e|ation)\w+ Uniform(Dequantize|Quantize|Requantize) UniformQuantized[A-Z]\w+
    """,
    "random numbers": r"""
        Multinomial ParameterizedTruncatedNormal Random(Crop|Gamma|GammaGrad|IndexShuffle|Poisson|Shuffle)
        Random(StandardNormal|Uniform|UniformInt) TruncatedNormal Rng(ReadAndSkip|Skip) NonDeterministicInts
        Stateful(RandomBinomial|StandardNormal|TruncatedNormal|Uniform|UniformFullInt|UniformInt)
        Stateless(Multinomial|ParameterizedTruncatedNormal|Shuffle|TruncatedNormal|SampleDistortedBoundingBox)
        StatelessRandom(Binomial|Gamma|GetAlg|GetKeyCounter|GetKeyCounterAlg|Normal|Poisson)
        StatelessRandomUniform(FullInt|Int)? SampleDistortedBoundingBox SobolSample
    """,
    "pictures and sound": r"""
        Adjust(Contrast|Contrastv2|Hue|Saturation) HSVToRGB RGBToHSV CropAndResize(GradBoxes|GradImage)?
        Decode(AndCropJpeg|Bmp|Gif|Image|Jpeg|Jxl|Png|Wav|WebP) Encode(Jpeg|JpegVariableQuality|Png|Wav)
        DrawBoundingBoxes ExtractGlimpse ExtractImagePatches ExtractJpegShape ExtractVolumePatches
        GenerateBoundingBoxProposals ImageProjectiveTransform (Combined)?NonMaxSuppression(WithOverlaps)?
        Resize(Area|Bicubic|Bilinear|NearestNeighbor)(Grad)? ScaleAndTranslate(Grad)? AudioMicrofrontend
        AudioSpectrogram Mfcc
    """,
    "strings and records": r"""
        AsString (Decode|Encode)Base64 Decode(Compressed|CSV|JSONExample|PaddedRaw|Raw) ReduceJoin
        (Static)?Regex(FullMatch|Replace) String(Format|Join|Length|Lower|NGrams|Split|Strip|ToNumber|Upper)
        StringToHashBucket(Fast|Strong)? Substr Unicode(Decode|DecodeWithOffsets|Encode|Script|Transcode)
        UnsortedSegmentJoin Parse(Single)?(Sequence)?Example ParseTensor SerializeTensor
        Sharded(Filename|Filespec) (Audio|Histogram|Image|Merge|Scalar|Tensor)Summary
    """,
    "ragged and sparse tensors, sets": r"""
        Ragged(Bincount|CountSparseOutput|Cross|FillEmptyRows|FillEmptyRowsGrad|Gather|Range)
        RaggedTensor(FromVariant|ToSparse|ToTensor|ToVariant|ToVariantGradient) DenseCountSparseOutput
        Sparse(Add|AddGrad|Bincount|Concat|CountSparseOutput|Cross|CrossHashed|FillEmptyRows|FillEmptyRowsGrad)
        SparseDenseCwise(Add|Div|Mul) SparseMatMul SparseMatrix[A-Z]\w+ SparseReduce(Max|Sum)(Sparse)?
        Sparse(Reorder|Reshape|Slice|SliceGrad|Softmax|SparseMaximum|SparseMinimum|Split|ToDense)
        SparseSegment(Mean|SqrtN|Sum)(Grad|WithNumSegments)? SparseTensor(DenseAdd|DenseMatMul)
        SparseTensorToCSRSparseMatrix CSRSparseMatrix(Components|ToDense|ToSparseTensor)
        DenseToCSRSparseMatrix (DenseToDense|DenseToSparse|SparseToSparse)SetOperation SetSize
        (Des|S)erialize(Many)?Sparse
    """,
    "XLA's, without its calls of programs": r"""
        Xla(BroadcastHelper|Conv|Dot|DynamicSlice|DynamicUpdateSlice|Einsum|Gather|KeyValueSort)
        Xla(OptimizationBarrier|Pad|Reduce|ReducePrecision|ReduceWindow|RngBitGenerator|Scatter|SelectAndScatter)
        Xla(SelfAdjointEig|Sharding|Sort|Svd|VariadicReduce|VariadicSort)
    """,
    "tensorflow-text's": r"""
        CaseFoldUTF8 ConstrainedSequence FastBertNormalize FastWordpieceTokenizeWithOffsets FindSourceOffsets
        MaxSpanningTree NormalizeUTF8(WithOffsetsMap)? PhraseTokenize RegexSplitWithOffsets RougeL
        SentenceFragments
        Sentencepiece(Detokenize|IdToString|StringToId|Tokenize|TokenizeWithOffsets|VocabSize)?Op
        SplitMergeTokenizeWithOffsets TokenizerFromLogits UnicodeScriptTokenizeWithOffsets
        WhitespaceTokenizeWithOffsets WordpieceTokenizeWithOffsets
        TFText>(BoiseTagsToOffsets|OffsetsToBoiseTags)
        TFText>(ByteSplitByOffsets|ByteSplitWithOffsets|FastSentencepieceDetokenize|FastSentencepieceTokenize)
        TFText>(FastWordpieceDetokenize|NgramsStringJoin|PhraseDetokenize|RoundRobinGenerateMasks|RoundRobinTrim)
        TFText>(Utf8Binarize|WhitespaceTokenizeWithOffsets)
    """,
}
_PURE = re.compile("|".join(name for names in _ALLOWED.values() for name in names.split()))
_VERSION = re.compile(r"V\d+$")


def is_pure(operation: str) -> bool:
    """Whether an operation of this name is known to do nothing but compute."""
    return _PURE.fullmatch(without_version(operation)) is not None


def without_version(operation: str) -> str:
    """`PrintV2` as `Print`."""
    return _VERSION.sub("", operation)
