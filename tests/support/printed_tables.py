"""Tables II to VII of the paper as they are printed, line by line; ✓: online learning."""

TABLE_II_BASE = {"lr1": 1e-4, "lr2": 1e-5, "gamma_d": 100, "gamma_r": 15, "lambda": 2e-15, "beta": 0.1}
TABLE_II = """
A lr1 1e-3 47.4
A lr1 1e-5 48.7
B lr2 1e-4 50.3
B lr2 1e-6 50.8
C gamma_d 90 50.4
C gamma_d 110 50.8
D gamma_r 10 49.8
D gamma_r 20 50.6
E lambda 2e-14 48.1
E lambda 2e-16 49.9
F beta 0.08 50.7
F beta 0.12 50.6
"""
TABLE_II_ROWS = ["lr1_1e-3", "lr1_1e-5", "lr2_1e-4", "lr2_1e-6", "sigma_xy_90", "sigma_xy_110", "sigma_rgb_10"]
TABLE_II_ROWS += ["sigma_rgb_20", "lambda_x10", "lambda_x0.1", "beta_0.08", "beta_0.12"]
# J seen, J unseen, F seen, F unseen, G of each row
TABLE_III = {
    "pce": (49.5, 42.6, 46.4, 46.2, 46.2),
    "pce_sa": (52.4, 44.0, 48.6, 46.2, 47.8),
    "pce_psa": (51.7, 42.7, 47.5, 44.2, 46.5),
    "pce_nl": (51.0, 43.0, 47.4, 44.9, 46.6),
    "pce_cca": (51.3, 43.2, 47.4, 45.8, 46.9),
    "pce_ss": (53.4, 45.4, 50.8, 48.6, 49.5),
    "pce_dcrf": (52.9, 44.1, 50.6, 47.3, 48.7),
    "full": (53.1, 47.3, 51.8, 52.0, 51.1),
}
TABLE_IV = """
MaskTrack [6] ✓ 59.9 45.0 59.5 47.9 53.1
OSVOS [7] ✓ 59.8 54.2 60.5 60.7 58.8
OnAVOS [20] ✓ 60.1 46.6 62.7 51.4 55.2
S2S(+OL) [54] ✓ 71.0 55.5 70.0 61.2 64.4
OSMN [63] 60.0 40.6 60.1 44.0 51.2
RGMP [64] 59.5 45.2 – – 53.8
RVOS [8] 63.6 45.5 67.2 51.0 56.8
S2S [54] 71.0 70.0 55.5 61.2 64.4
PreMVOS [65] 71.4 56.5 75.9 63.7 66.9
AGG-VOS [58] 71.3 65.5 75.2 73.1 71.3
A-GAME [9] 67.8 60.8 – – 66.1
Ours 53.1 47.3 51.8 52.0 51.1
"""
TABLE_V = """
RVOS [8] 44.7 21.2 45.0 23.9 33.7
Ours 53.1 47.3 51.8 52.0 51.1
"""
TABLE_VI = """
Ours RVOS PDB AGS OSMN MUG-W FAVOS OSVOS RVOS OnAVOS AGSS AGAME FEELVOS
- [8] [13] [37] [63] [15] [66] [7] [8] [20] [58] [9] [10]
J&F-Mean 55.7 41.2 55.1 57.5 54.8 56.0 58.2 60.3 60.6 65.4 67.4 71.0 71.5
J-Mean 53.4 36.8 53.2 55.5 55.2 54.1 54.6 56.6 57.5 61.6 64.9 68.5 69.1
J-Recall 62.4 40.2 58.9 61.6 60.9 60.5 61.1 63.8 65.2 67.4 – 78.4 79.1
J-Decay 20.0 0.5 4.9 7.0 21.5 32.5 14.1 26.1 24.9 27.9 – 14.0 17.5
F-Mean 57.9 45.7 57.0 59.5 57.1 58.0 61.8 63.9 63.6 69.1 69.9 73.6 74.0
F-Recall 66.7 46.4 60.2 62.8 66.1 62.2 72.3 73.8 73.2 75.4 – 83.4 83.8
F-Decay 18.8 1.7 68.8 9.0 24.3 37.4 18.0 27.0 28.2 26.6 – 15.8 20.1
"""
TABLE_VII = """
Ours RVOS PDB MuG-W AGS OSMN SIAM FAVOS RVOS OSVOS AGAME OnAVOS FEELVOS
- [8] [13] [15] [37] [63] [67] [66] [8] [7] [9] [20] [10]
J&F-Mean 41.7 22.5 40.4 41.7 45.6 41.3 43.2 43.6 50.3 50.9 52.3 52.8 57.8
J-Mean 39.0 17.7 37.7 38.9 42.1 37.7 40.6 42.9 47.9 47.0 49.2 49.9 55.1
J-Recall 42.3 16.2 42.6 44.3 48.5 38.9 44.5 48.1 54.4 52.1 53.2 54.3 62.6
J-Decay 23.7 1.6 4.0 -2.7 2.6 19.0 21.9 18.1 35.7 19.2 28.9 23.0 29.8
F-Mean 44.4 27.3 43.0 44.5 49.0 44.9 45.8 44.2 52.6 54.8 55.3 55.7 60.4
F-Recall 45.1 24.8 44.6 46.6 51.5 47.4 45.3 51.1 61.7 59.7 61.1 60.3 68.5
F-Decay 23.9 1.8 3.7 -1.7 2.6 17.4 22.4 19.8 36.7 19.8 27.6 23.4 33.5
"""
NUM_UNSUPERVISED = {"VI": 3, "VII": 4}  # number of columns after Ours that are printed as unsupervised
YOUTUBE_VOS_COLUMNS = ("J_seen", "J_unseen", "F_seen", "F_unseen", "G")
DAVIS_COLUMNS = ("J&F-Mean", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay")
# the paper's own row by table
OURS = {"IV": (53.1, 47.3, 51.8, 52.0, 51.1), "V": (53.1, 47.3, 51.8, 52.0, 51.1)}
OURS |= {"VI": (55.7, 53.4, 62.4, 20.0, 57.9, 66.7, 18.8), "VII": (41.7, 39.0, 42.3, 23.7, 44.4, 45.1, 23.9)}
