"""What the controller is made of, and whether that can be trusted: `make lock`, `make sbom`, `make licences`, `make audit`.

`requirements.lock` names every package that runs in the image, with its hashes. Everything here starts from it: the bill
of materials and the licences are those of an environment that was installed from it, the advisories are looked up for it.
"""
