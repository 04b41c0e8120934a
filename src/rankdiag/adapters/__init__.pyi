from rankdiag.adapters._graph_files import GraphFile as GraphFile
from rankdiag.adapters._graph_files import read_graph as read_graph
from rankdiag.adapters._graph_files import write_graph as write_graph
from rankdiag.adapters._pyg import WalkIndexSparsify as WalkIndexSparsify
from rankdiag.adapters._rewardbench import RewardBench as RewardBench
from rankdiag.adapters._rewardbench import from_rewardbench as from_rewardbench
from rankdiag.adapters._trl_log import from_trl_log as from_trl_log
