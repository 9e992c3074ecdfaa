"""Miniature folders in the layouts of public data sets, with invented people and pictures."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image

ROWS = 30
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
_RANDOM = np.random.default_rng(19)


def write_public(root: Path) -> None:
    """Write the folders that the experiments in ``experiments/public`` name."""
    for write in (_bids, _ixi, _oasis, _adni, _ukb, _mimic_cxr, _celeba, _tabular):
        folder = root / write.__name__.removeprefix("_").replace("_", "-")
        folder.mkdir(parents=True)
        write(folder)


def _scan(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    axes = [np.linspace(-1, 1, size) ** 2 for size in (16, 20, 18)]
    distance = axes[0][:, None, None] + axes[1][:, None] + axes[2]
    head = (distance < 0.7) * _RANDOM.integers(200, 900, distance.shape)
    nibabel.save(nibabel.Nifti1Image(head.astype(np.int16), AFFINE), path)


def _picture(path: Path, shape: tuple[int, ...]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(_RANDOM.integers(0, 256, shape, dtype=np.uint8)).save(path)


def _write(path: Path, header: str, rows: list[str], end: str = "\n") -> None:
    text = end.join([header, *rows]) + end
    content = text.encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def _age(k: int) -> float:
    return round(20 + 2.1 * k + float(_RANDOM.uniform()), 2)


def _bids(folder: Path) -> None:
    rows = []
    for k in range(ROWS):
        name = f"sub-{k + 1:02d}"
        age = "n/a" if k == 3 else f"{_age(k):.0f}"
        rows.append(f"{name}\t{age}\t{'FM'[k % 2]}\t{'right' if k % 5 else 'n/a'}\tcontrol")
        _scan(folder / name / "anat" / f"{name}_run-1_T1w.nii.gz")
    _write(folder / "participants.tsv", "participant_id\tage\tsex\thandedness\tgroup", rows)


def _ixi(folder: Path) -> None:
    header = (
        '"IXI_ID","SEX_ID (1=m, 2=f)","HEIGHT","WEIGHT","ETHNIC_ID","MARITAL_ID","OCCUPATION_ID",'
        '"QUALIFICATION_ID","DOB","DATE_AVAILABLE","STUDY_DATE","AGE"'
    )
    rows = []
    for k in range(ROWS):
        number, site = 2 + 7 * k, ("Guys", "HH", "IOP")[k % 3]
        age = "" if k == 5 else str(_age(k))
        body = f"{160 + k},{60 + k},1,4,1,5,1958-02-22,1,2005-11-18"
        rows.append(f"{number},{1 + k % 2},{body},{age}")
        if k != 7:  # the table has more rows than there are scans
            _scan(folder / "IXI-T1" / f"IXI{number:03d}-{site}-{800 + k:04d}-T1.nii.gz")
    _write(folder / "IXI.csv", header, rows, "\r\n")


def _oasis(folder: Path) -> None:
    rows = []
    for k in range(ROWS + 1):
        name = f"OAS1_{k + 1:04d}_MR1" if k < ROWS else "OAS1_0005_MR2"  # a repeated scan
        delay = "N/A" if k < ROWS else "89"
        rows.append(
            f"{name},{'FM'[k % 2]},R,{20 + 2 * k},{'' if k % 3 else 3},,{'' if k % 3 else 29},,"
            f"{1300 + 11 * k},{0.85 - 0.003 * k:.3f},{1.3 - 0.01 * k:.3f},{delay}"
        )
        path = folder / name / "PROCESSED" / "MPRAGE" / "T88_111"
        _scan(path / f"{name}_mpr_n4_anon_111_t88_masked_gfc.nii.gz")
    _write(
        folder / "oasis_cross-sectional.csv",
        "ID,M/F,Hand,Age,Educ,SES,MMSE,CDR,eTIV,nWBV,ASF,Delay",
        rows,
    )


def _adni(folder: Path) -> None:
    header = (
        '"Image Data ID","Subject","Group","Sex","Age","Visit","Modality","Description","Type",'
        '"Acq Date","Format","Downloaded"'
    )
    rows = []
    for k in range(ROWS):
        subject, image = f"{k // 2:03d}_S_{1000 + k // 2}", f"I{30000 + k}"
        group = "SMC" if k >= 28 else ("CN", "MCI", "AD")[k // 2 % 3]
        rows.append(
            f'"{image}","{subject}","{group}","{"FM"[k // 2 % 2]}","{60 + k // 2}",'
            f'"{"bl" if k % 2 else "m12"}","MRI","MPRAGE","Original","4/{1 + k % 28}/2006",'
            '"NiFTI","9/01/2023"'
        )
        place = f"ADNI/{subject}/MPRAGE/2006-04-{1 + k % 28:02d}_08_20_30.0/{image}"
        _scan(folder / place / f"ADNI_{subject}_MR_MPRAGE_br_raw_20060418_{k}_{image}.nii")
    _write(folder / "collection.csv", header, rows)


def _ukb(folder: Path) -> None:
    rows = []
    for k in range(ROWS):
        eid = 1000000 + 37 * k
        volumes = ("", "") if k == 2 else (1_100_000 + 1234.5 * k, 30_000 + 456.25 * k)
        cells = [eid, k % 2, 45 + k, 46 + k, *volumes, "2015-03-12"]
        rows.append(",".join(f'"{cell}"' for cell in cells))
        _scan(folder / f"{eid}_20252_2_0" / "T1" / "T1_brain_to_MNI.nii.gz")
    names = ["eid", "31-0.0", "21003-0.0", "21003-2.0", "25010-2.0", "25004-2.0", "53-2.0"]
    _write(folder / "ukb.csv", ",".join(f'"{name}"' for name in names), rows)


def _mimic_cxr(folder: Path) -> None:
    images, labels, patients = [], [], []
    for k in range(ROWS):
        subject, study = 10_000_032 + 7 * k, 50_414_267 + k
        label = ("1.0", "0.0", "-1.0", "")[k % 4 if k > 25 else k % 2]
        labels.append(f"{subject},{study},,1.0,{label}")
        patients.append(f"{subject},{'FM'[k // 2 % 2]},{30 + k},2180,2014 - 2016,")
        for view in ("PA", "LATERAL"):
            dicom = f"{k:08x}-6b5d9f7c-{view.lower()[:2]}"
            images.append(f"{dicom},{subject},{study},CHEST,{view},3056,2544,21800506,213014.531")
            _picture(folder / f"files/p10/p{subject}/s{study}/{dicom}.jpg", (36, 30))
    _write(
        folder / "mimic-cxr-2.0.0-metadata.csv.gz",
        "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,"
        "StudyDate,StudyTime",
        images,
    )
    _write(
        folder / "mimic-cxr-2.0.0-chexpert.csv.gz",
        "subject_id,study_id,Atelectasis,Cardiomegaly,Pleural Effusion",
        labels,
    )
    _write(
        folder / "patients.csv.gz",
        "subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod",
        patients,
    )


def _tabular(folder: Path) -> None:
    header = "age,sex,bmi,blood pressure (mmHg),s1,log triglycerides,progression"
    rows = [
        f"{_age(k):.0f},{('female', 'male')[k % 2]},{20 + k % 7}.5,{80 + k % 11},157,"
        f"{4 + k % 5 / 10:.4f},{90 + 5 * k}"
        for k in range(ROWS)
    ]
    _write(folder / "diabetes.csv", header, rows)
    header = "mdvis,lncoins,idp,lpi,fmde,physlm,disea,hlthg,hlthf,hlthp"
    rows = [
        f"{k * k % 11},{(0.0, 3.26, 4.62)[k % 3]},{k // 2 % 2},6.9,0.0,{k % 2}.0,"
        f"{5 + k % 13}.7,1,0,0"
        for k in range(ROWS)
    ]
    _write(folder / "randhie.csv", header, rows)


def _celeba(folder: Path) -> None:
    names = "5_o_Clock_Shadow Bald Gray_Hair Male Mouth_Slightly_Open Smiling Young"
    rows = []
    for k in range(ROWS):
        signs = _RANDOM.choice([-1, 1], 7)
        signs[[1, 2, 3, 5, 6]] = [1 - 2 * (k >> bit & 1) for bit in range(5)]
        rows.append(f"{k + 1:06d}.jpg " + " ".join(f"{sign:2d}" for sign in signs))
        _picture(folder / "img_align_celeba" / f"{k + 1:06d}.jpg", (218, 178, 3))
    (folder / "list_attr_celeba.txt").write_text("\n".join([str(ROWS), f"{names} ", *rows]) + "\n")
