import numpy as np
import pytest

from gateway.control.replay import MIRROR, NotRecorded, Question, replay
from gateway.evidence import ledger
from gateway.evidence.paired import PairedTests
from gateway.evidence.query import Queries
from models.catalog import Catalog
from models.signature import Answer
from routing.records import Column
from tests.kit.spooled import BINARY, START_UNIX_US, Place, label, labels, pid_text, predictions, request
