# The face of the package: what `from atss_nb import ...` offers. Read at import time, too: names load when first used.
from . import recipes as recipes
from .data.datasets import open_dataset as open_dataset
from .data.detections import Detections as Detections
from .evaluation.evaluate import evaluate as evaluate
from .explore.microscope import Microscope as Microscope
from .geometry.boxes import AngleDef as AngleDef
from .geometry.conventions import convert as convert
from .geometry.boxes import hbb2obb as hbb2obb
from .geometry.boxes import obb2hbb as obb2hbb
from .geometry.boxes import obb2poly as obb2poly
from .geometry.boxes import poly2obb as poly2obb
from .geometry.boxes import regularize as regularize
from .geometry.nms import batched_nms_rotated as batched_nms_rotated
from .geometry.nms import nms_rotated as nms_rotated
from .geometry.overlap import box_iou_rotated as box_iou_rotated
from .inference.detector import Detector as Detector
from .inference.detector import load as load
from .inference.predict import predict as predict
from .model.config import ModelConfig as ModelConfig
from .model.faster_rcnn import FasterRCNN as FasterRCNN
from .model.retinanet import RetinaNet as RetinaNet
from .model.build import build_model as build_model
from .samples.anchors import AnchorGrid as AnchorGrid
from .samples.assign import ATSS as ATSS
from .samples.assign import CenterSampling as CenterSampling
from .samples.assign import MaxIoU as MaxIoU
from .samples.coders import DeltaXYWHA as DeltaXYWHA
from .samples.coders import DistanceLTRB as DistanceLTRB
from .samples.statistics import assignment_report as assignment_report
from .scenes.scenes import make_scene as make_scene
from .scenes.scenes import write_scenes as write_scenes
from .training.loop import train as train
from .training.settings import TrainConfig as TrainConfig

__version__: str
