"""Is efficient attention the same prediction, a distribution, computable, and minimally necessary and sufficient?"""
